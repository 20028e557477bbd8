"""The C-STORE and C-ECHO provider: an object is acknowledged when it is on disk."""

import io
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES, _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from oncofm.pacs.audit import Audit
from oncofm.pacs.config_node import NodeSection
from oncofm.pacs.errors import NodeError, ObjectRefusedError
from oncofm.pacs.objects import ObjectFacts, check_inflated, loggable, read_facts
from oncofm.pacs.server import BoundedHandler, BoundedServer, BoundedSocket, server_tls
from oncofm.pacs.spool import Spool

VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection Document
    "1.2.840.10008.5.1.4.1.1.88.67",  # X-Ray Radiation Dose SR
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.1",  # Multi-frame Single Bit Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.128",  # Positron Emission Tomography Image
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
    "1.2.840.10008.5.1.4.1.1.481.5",  # RT Plan
)
"""What comes with a CT study. All are stored, and what a job has no use for goes with the rest;
other classes are refused when the association is made, so that no acknowledgement is a lie."""
TRANSFER_SYNTAXES = tuple(ALL_TRANSFER_SYNTAXES)
PLAIN_SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
"""Of what is decoded at once: nothing that could inflate."""

SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
PROCESSING_FAILURE = 0x0110


Take = Callable[[evt.Event], tuple[int, None]]
"""Takes an N-EVENT-REPORT; gives its status."""


@dataclass(frozen=True)
class Received:
    """An object that is on disk.

    Attributes
    ----------
    facts : ObjectFacts
        What it is.
    file : str
        Name in the spool.
    n_bytes : int
        Size of the file.
    calling, called : str
        AE titles.
    """

    facts: ObjectFacts
    file: str
    n_bytes: int
    calling: str
    called: str


class Receiver:
    """The provider; it listens while it is entered.

    Parameters
    ----------
    section : NodeSection
        Where and to whom.
    spool : Spool
        Takes the files.
    take : callable
        Told of each object that is stored.
    can_note : callable
        Whether what is told is written down, or the database's disk is full, say.
    audit : Audit
        Told of what is refused.
    take_report : callable or None
        Takes what peers report of storage commitment (N-EVENT-REPORT); without it they cannot.
    """

    def __init__(
        self,
        section: NodeSection,
        spool: Spool,
        take: Callable[[Received], None],
        can_note: Callable[[], bool],
        audit: Audit,
        take_report: Take | None = None,
    ) -> None:
        self._section = section
        self._spool = spool
        self._take = take
        self._can_note = can_note
        self._audit = audit
        self._take_report = take_report
        self._max_object_bytes = int(section.max_object_mb * 1e6)
        self._server: BoundedServer | None = None
        self._ae: ApplicationEntity | None = None
        self.counts = {"stored": 0, "refused": 0, "own": 0, "associations_refused": 0}
        self.n_bytes = 0

    def __enter__(self) -> "Receiver":
        silence_pynetdicom()
        section = self._section
        ae = self._ae = ApplicationEntity(section.ae_titles[0])
        ae.require_called_aet = True
        ae.require_calling_aet = list(section.peers)
        ae.maximum_associations = section.max_associations
        ae.maximum_pdu_size = section.max_pdu_bytes
        ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = section.idle_s
        ae.add_supported_context(VERIFICATION)
        for uid in STORAGE_CLASSES:
            ae.add_supported_context(uid, list(TRANSFER_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._choose_title),
            (evt.EVT_REJECTED, self._note_rejected),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, self._store),
        ]
        if self._take_report is not None:
            # The peer opens the association, and is the provider all the same (PS3.4 J.3.3).
            ae.add_supported_context(COMMITMENT, PLAIN_SYNTAXES, scu_role=False, scp_role=True)
            handlers.append((evt.EVT_N_EVENT_REPORT, self._take_report))
        context = section.tls and server_tls(section.tls)
        try:
            server = BoundedServer(
                ae,
                (section.address, section.port),
                section.ae_titles[0],
                ae.supported_contexts,
                ssl_context=context,
                evt_handlers=handlers,
                request_handler=BoundedHandler,
            )
        except OSError as error:
            raise NodeError(
                f"The node cannot listen at {section.address}:{section.port} "
                f"({error.strerror or error}); choose another port."
            ) from error
        server.max_pdu_bytes = section.max_pdu_bytes
        server.max_object_bytes = self._max_object_bytes
        server.idle_s = section.idle_s
        server.on_failure = lambda reason, address: self._audit(
            "connection_failed", reason=reason, address=address
        )
        self._server = server
        ae._servers.append(server)
        threading.Thread(
            target=server.serve_forever, args=(0.1,), name="dicom", daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ae is not None:
            self._ae.shutdown()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return self._server.server_address[1]

    # --- what the library calls -----------------------------------------------------------

    def _choose_title(self, event: evt.Event) -> None:
        """Answer as who was called, if that is one of the node's titles."""
        called = _title(_request(event).called_ae_title)
        if called in self._section.ae_titles:
            event.assoc.acceptor.ae_title = called

    def _note_rejected(self, event: evt.Event) -> None:
        self.counts["associations_refused"] += 1
        request = _request(event)
        self._audit(
            "association_refused",
            calling=_title(request.calling_ae_title),
            called=_title(request.called_ae_title),
            address=event.assoc.requestor.address,
        )

    def _store(self, event: evt.Event) -> int:
        cast(BoundedSocket, event.assoc.dul.socket).n_object_bytes = 0
        calling = _title(event.assoc.requestor.ae_title)
        uid = loggable(cast(C_STORE, event.request).AffectedSOPInstanceUID)
        try:
            status, reason = self._keep(event, calling)
        except ObjectRefusedError as error:
            status, reason = CANNOT_UNDERSTAND, str(error)
        except OSError as error:
            status = OUT_OF_RESOURCES
            reason = f"The spool cannot be written ({error.strerror}); free space."
        except Exception as error:  # its text may quote a header
            status = PROCESSING_FAILURE
            reason = f"Failed unexpectedly ({type(error).__name__}), a defect of the program."
        if status != SUCCESS:
            self.counts["refused"] += 1
            self._audit(
                "object_refused", sop=uid, calling=calling, status=f"{status:04X}", message=reason
            )
        return status

    def _keep(self, event: evt.Event, calling: str) -> tuple[int, str]:
        request = cast(C_STORE, event.request)
        data = cast(io.BytesIO, request.DataSet).getbuffer()
        if self._spool.is_full(len(data)):
            return OUT_OF_RESOURCES, "The disk is below its watermark; free space."
        if not self._can_note():
            return OUT_OF_RESOURCES, "The database cannot be written; free space."
        if UID(event.context.transfer_syntax) == DeflatedExplicitVRLittleEndian:
            check_inflated(data, self._max_object_bytes)
        called = _title(event.assoc.acceptor.ae_title)
        start = _file_start(event, calling, called)
        facts = read_facts(start + data)
        if (facts.sop_class, facts.sop_uid) != (
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
        ):
            return MISMATCH, "The data set is not the object that was announced; send it again."
        if facts.is_own:
            self.counts["own"] += 1
            return SUCCESS, ""
        name = self._spool.store(facts.study_uid, facts.sop_uid, start, data)
        self.counts["stored"] += 1
        self.n_bytes += len(data)
        self._take(Received(facts, name, len(data), calling, called))
        return SUCCESS, ""


def _request(event: evt.Event) -> A_ASSOCIATE:
    return cast(A_ASSOCIATE, event.assoc.requestor.primitive)


def _file_start(event: evt.Event, calling: str, called: str) -> bytes:
    """Preamble and meta information (PS3.10 7.1), which also remembers who sent the object."""
    meta = event.file_meta
    meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle = calling, called
    stream = DicomBytesIO()
    stream.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(stream, meta)
    return stream.getvalue()


def silence_pynetdicom() -> None:
    """Keep the library from printing what it sends and receives."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    for name in ("pynetdicom", "pydicom"):
        library = logging.getLogger(name)
        library.handlers = [logging.NullHandler()]
        library.propagate = False
        library.setLevel(logging.CRITICAL)


def _title(text: str | None) -> str:
    """Make of an AE title, which a stranger chose, what can be printed on a line."""
    return "".join(char if " " <= char <= "~" else "?" for char in text or "").strip()[:16]

"""Instances to a peer by C-STORE."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from oncofm.pacs.config_peers import ClientTls, DicomDestination
from oncofm.pacs.database import PENDING, REFUSED, Delivery
from oncofm.pacs.receive import silence_pynetdicom
from oncofm.pacs.verdict import Verdict, judge_status

_MAX_CONTEXTS = 128
_BUSY = "it is busy and is asked again"
_REMEDIES: dict[object, str] = {(1, 7): "mend its AE title", (3, 1): _BUSY, (3, 2): _BUSY}
"""By source and diagnostic of a rejection (PS3.8 table 9-21)."""


def send_dicom(
    destination: DicomDestination, deliveries: Sequence[Delivery]
) -> Iterator[tuple[Delivery, Verdict]]:
    """Send instances over one association.

    Parameters
    ----------
    destination : DicomDestination
        The peer.
    deliveries : sequence of Delivery
        What is to be sent.

    Yields
    ------
    tuple of Delivery and Verdict
        As each is answered; all are yielded.
    """
    ready: list[Delivery] = []
    contexts: dict[tuple[str, str], None] = {}
    for delivery in deliveries:
        try:
            meta = read_file_meta_info(delivery.file)
        except Exception as error:  # garbled bytes make pydicom raise anything
            yield delivery, unreadable(delivery, error)
            continue
        ready.append(delivery)
        for syntax in (meta.TransferSyntaxUID, ExplicitVRLittleEndian, ImplicitVRLittleEndian):
            contexts[delivery.sop_class, str(syntax)] = None
    if not ready:
        return
    association = open_association(destination, list(contexts)[:_MAX_CONTEXTS])
    if isinstance(association, Verdict):
        yield from ((delivery, association) for delivery in ready)
        return
    try:
        for delivery in ready:
            yield delivery, _store(association, delivery)
    finally:
        if association.is_established:
            association.release()


def unreadable(delivery: Delivery, error: Exception) -> Verdict:
    """Judge a report whose file is gone or damaged."""
    return Verdict(
        REFUSED,
        "",
        f"The file of instance {delivery.sop_uid} cannot be read ({type(error).__name__}); "
        "requeue the study.",
    )


def open_association(
    destination: DicomDestination,
    contexts: Sequence[tuple[str, str]],
    handlers: Sequence[tuple[evt.InterventionEvent, Callable[..., Any]]] = (),
) -> Association | Verdict:
    """Open an association, or say why there is none.

    Parameters
    ----------
    destination : DicomDestination
        The peer.
    contexts : sequence of tuple of str and str
        SOP class and transfer syntax of each presentation context.
    handlers : sequence of tuple
        Events that the peer may raise, and who takes them.
    """
    silence_pynetdicom()
    ae = ApplicationEntity(destination.calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = destination.timeout_s
    ae.dimse_timeout = ae.network_timeout = destination.timeout_s
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=[build_context(sop_class, syntax) for sop_class, syntax in contexts],
            ae_title=destination.ae_title,
            tls_args=None if destination.tls is None else (_tls(destination.tls), destination.host),
            evt_handlers=list(handlers),
        )
    except OSError as error:
        reason = error.strerror or error
        return Verdict(PENDING, "", f"TLS to {destination.host} cannot be set up ({reason}).")
    if not association.is_established:
        return _not_associated(destination, association)
    return association


def _tls(files: ClientTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.ca))
    context.check_hostname = files.check_host
    if files.certificate is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


def _not_associated(destination: DicomDestination, association: Association) -> Verdict:
    peer = f"{destination.ae_title} at {destination.host}:{destination.port}"
    answer = association.acceptor.primitive
    if not association.is_rejected:
        if answer is not None and answer.result == 0 and not association.accepted_contexts:
            classes = sorted(
                {str(one.abstract_syntax) for one in association.requestor.requested_contexts}
            )
            message = f"{peer} takes nothing of class {' or '.join(classes)}; configure it to."
            return Verdict(REFUSED, "no context", message)
        return Verdict(PENDING, "", f"{peer} does not answer; start it, or mend the network.")
    source, diagnostic = (answer.result_source, answer.diagnostic) if answer else (0, 0)
    remedy = _REMEDIES.get((source, diagnostic), "make {calling} known there")
    return Verdict(
        PENDING,
        f"RJ {source}/{diagnostic}",
        f"{peer} rejects the association; {remedy.format(calling=destination.calling_ae_title)}.",
    )


def _store(association: Association, delivery: Delivery) -> Verdict:
    if not association.is_established:
        return Verdict(PENDING, "", "The peer ended the association; it is tried again.")
    try:
        answer = association.send_c_store(delivery.file)
    except ValueError:
        return Verdict(
            REFUSED,
            "no context",
            f"The peer takes no objects of class {delivery.sop_class}; configure it to.",
        )
    except Exception as error:  # a damaged file makes pydicom raise anything
        if not association.is_established:
            return Verdict(PENDING, "", "The peer ended the association; it is tried again.")
        return unreadable(delivery, error)
    if "Status" not in answer:
        return Verdict(PENDING, "", "The peer gave no answer; it is tried again.")
    return judge_status(int(answer.Status))

"""Studies from a DICOMweb server into the spool, as if they had been received."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info

from oncofm.dicomweb.address import Resource
from oncofm.dicomweb.fetch import receive
from oncofm.dicomweb.instance import data_set_start
from oncofm.dicomweb.search import InstanceFound, SeriesFound, find_instances, find_series
from oncofm.dicomweb.server import Server
from oncofm.pacs.config_peers import QidoSource
from oncofm.pacs.database import Database
from oncofm.pacs.errors import NodeError, ObjectRefusedError
from oncofm.pacs.objects import digest, read_facts
from oncofm.pacs.receive import STORAGE_CLASSES, Received
from oncofm.pacs.rules import fits
from oncofm.pacs.sources import Fetch
from oncofm.pacs.spool import Spool


class NodeStoppedError(Exception):
    """The node ends; what is left is fetched after the next start."""


@dataclass
class Fetcher:
    """Fetches studies of one source.

    Attributes
    ----------
    name : str
        The source's; it stands for the calling AE title.
    source : QidoSource
        What of a study is fetched.
    called : str
        AE title that it is fetched for.
    folder : pathlib.Path
        Holds the object at hand, on the spool's disk.
    spool : Spool
        Takes the files.
    database : Database
        Knows what is there.
    take : callable
        Told of each object that is stored.
    can_note : callable
        Whether what is told is written down.
    is_stopped : callable
        Whether to end.
    """

    name: str
    source: QidoSource
    called: str
    folder: Path
    spool: Spool
    database: Database
    take: Callable[[Received], None]
    can_note: Callable[[], bool]
    is_stopped: Callable[[], bool]

    def __post_init__(self) -> None:
        """Begin to count."""
        self.counts = {"stored": 0, "own": 0}

    def fetch(self, server: Server, fetch: Fetch) -> int:
        """Fetch what is to be had of a study and not here.

        Parameters
        ----------
        server : Server
            Where it is.
        fetch : Fetch
            The study; one that somebody asked for is fetched whole.

        Returns
        -------
        int
            How many objects were stored.

        Raises
        ------
        WebError, ObjectRefusedError
            If one cannot be had, or used.
        NodeError
            If the node's disk does not take it.
        NodeStoppedError
            If the node ends.
        """
        study = Resource(server.url, fetch.study_uid)
        listed = self._list(server, study)
        known, present = self._what_is_known(fetch.study_uid)
        uids = {one.uid for instances in listed.values() for one in instances}
        if not fetch.ordered and uids <= known:
            return 0
        n_before = self.counts["stored"]
        self.folder.mkdir(parents=True, exist_ok=True)
        for series_uid, instances in listed.items():
            there = frozenset() if fetch.ordered else present
            series = study.series(series_uid)
            for found in receive(server, series, instances, self.folder, leave_out=there):
                try:
                    self._keep(found.path, fetch.study_uid)
                finally:
                    found.path.unlink()
        return self.counts["stored"] - n_before

    def _list(self, server: Server, study: Resource) -> dict[str, list[InstanceFound]]:
        """Find the instances that are wanted, by series."""
        series = find_series(server, study)
        if not self._fits(series):
            return {}
        return {
            one.uid: [
                instance
                for instance in find_instances(server, study.series(one.uid))
                if instance.sop_class in ("", *STORAGE_CLASSES)
            ]
            for one in series
            if one.modality in self.source.series
        }

    def _fits(self, series: Iterable[SeriesFound]) -> bool:
        return all(
            not patterns or any(fits(getattr(one, name), patterns) for one in series)
            for name, patterns in (
                ("station", self.source.station),
                ("description", self.source.series_description),
            )
        )

    def _what_is_known(self, study_uid: str) -> tuple[frozenset[str], frozenset[str]]:
        """SOP Instance UIDs that came or were sent before, and those whose files are here."""
        key = digest(study_uid)
        objects = self.database.rows(
            "SELECT sop_uid, present FROM objects WHERE study_key = ?", key
        )
        sent = self.database.rows("SELECT sop_uid FROM deliveries WHERE study_key = ?", key)
        known = frozenset(uid for uid, *_ in [*objects, *sent])
        return known, frozenset(uid for uid, is_here in objects if is_here)

    def _keep(self, path: Path, study_uid: str) -> None:
        """Put an object into the spool; it is on disk for good afterwards."""
        if self.is_stopped():
            raise NodeStoppedError
        start, data = self._parts(path)
        if self.spool.is_full(len(data)):
            raise NodeError("The disk is below its watermark; free space.")
        if not self.can_note():
            raise NodeError("The database cannot be written; free space.")
        facts = read_facts(start + data)
        if facts.study_uid != study_uid:
            raise ObjectRefusedError(
                f"Object {facts.sop_uid} is not of study {study_uid}, for which it came; use "
                "another server."
            )
        if facts.is_own:
            self.counts["own"] += 1
            return
        try:
            name = self.spool.store(facts.study_uid, facts.sop_uid, start, data)
        except OSError as error:
            raise NodeError(
                f"The spool cannot be written ({error.strerror}); free space."
            ) from error
        self.counts["stored"] += 1
        self.take(Received(facts, name, len(data), self.name, self.called))

    def _parts(self, path: Path) -> tuple[bytes, memoryview]:
        """Split a file: meta information that says who had it, and the data set as it came."""
        try:
            meta = read_file_meta_info(path)
            data = memoryview(path.read_bytes())[data_set_start(meta) :]
            meta.SourceApplicationEntityTitle = self.name
            meta.ReceivingApplicationEntityTitle = self.called
            stream = DicomBytesIO()
            stream.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(stream, meta)
        except OSError:
            raise
        except Exception as error:  # garbled bytes make pydicom raise anything
            raise ObjectRefusedError(
                f"Object {path.stem} has no usable file meta information "
                f"({type(error).__name__}); use another server."
            ) from error
        return stream.getvalue(), data

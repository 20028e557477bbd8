"""Servers that the node asks again and again for studies that it should fetch."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from oncofm.dicomweb.search import StudyFound, find_studies
from oncofm.dicomweb.server import Limits, Server
from oncofm.errors import OutputNotWritableError, WebError
from oncofm.pacs.audit import Audit
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.config_peers import QidoSource
from oncofm.pacs.errors import NodeError, ObjectRefusedError
from oncofm.pacs.fetch import Fetcher, NodeStoppedError
from oncofm.pacs.rules import fits
from oncofm.pacs.sources import Fetch, Sources
from oncofm.pacs.studies import Clock

FETCH_FOLDER = "fetching"
"""Below the node's folder; holds nothing that is needed after a restart."""

_DAY_S = 86_400.0


@dataclass
class Poller:
    """Asks one source, and fetches what it has.

    Attributes
    ----------
    fetcher : Fetcher
        Gets the studies.
    sources : Sources
        Remembers them.
    config : PacsConfig
        The node's.
    clock, audit
        The node's.
    pause : callable
        Waits so many seconds, unless the node ends.
    """

    fetcher: Fetcher
    sources: Sources
    config: PacsConfig
    clock: Clock
    audit: Audit
    pause: Callable[[float], object]

    @property
    def name(self) -> str:
        """Of the source."""
        return self.fetcher.name

    @property
    def source(self) -> QidoSource:
        """What is asked."""
        return self.fetcher.source

    def turn(self) -> bool:
        """Ask if it is time to, then fetch one study; says whether there was anything to do."""
        now, state = self.clock(), self.sources.state(self.name)
        if self.source.every_s is not None and now >= state.due_at:
            self._poll(now, self.source.every_s)
            return True
        fetch = None if state.failures else self.sources.next_fetch(self.name, now)
        if fetch is None:
            return False
        try:
            self._fetch(fetch)
        except NodeStoppedError:
            return False
        return True

    def _poll(self, now: float, every_s: float) -> None:
        try:
            studies = self._find(self._server(), now)
        except WebError as error:
            self.sources.note_failure(self.name, self.clock(), every_s, str(error))
            self.audit("source_failed", source=self.name, reason=error.code, message=str(error))
            return
        self.sources.see(self.name, studies, now)
        self.sources.note_answer(self.name, now, every_s)
        self.sources.forget(self.name, now - self.config.retention.records_days * _DAY_S)

    def _find(self, server: Server, now: float) -> list[StudyFound]:
        """Find the studies that the source is to be asked for."""
        query = {}
        if self.source.last_days is not None:
            first = datetime.fromtimestamp(now) - timedelta(days=self.source.last_days)
            query["StudyDate"] = f"{first:%Y%m%d}-"
        found: dict[str, StudyFound] = {}
        for modality in self.source.modality:
            studies = find_studies(server, {**query, "ModalitiesInStudy": modality})
            found |= {study.uid: study for study in studies}
        patterns = self.source.study_description
        return [one for one in found.values() if not patterns or fits(one.description, patterns)]

    def _fetch(self, fetch: Fetch) -> None:
        try:
            n_objects = self.fetcher.fetch(self._server(), fetch)
        except (WebError, ObjectRefusedError) as error:
            self._note_failed(fetch, error.code, str(error), is_to_blame=True)
        except (NodeError, OutputNotWritableError) as error:
            self._note_failed(fetch, error.code, str(error), is_to_blame=False)
        except (NodeStoppedError, sqlite3.Error):
            raise
        except Exception as error:  # its text may quote a header
            message = f"Fetching failed ({type(error).__name__}), a defect of the program."
            self._note_failed(fetch, "fetching_failed", message, is_to_blame=True)
        else:
            self.sources.note_fetched(fetch, n_objects, self.clock())
            if n_objects:
                self.audit("fetched", study=fetch.study_uid, source=self.name, objects=n_objects)

    def _note_failed(self, fetch: Fetch, reason: str, message: str, *, is_to_blame: bool) -> None:
        now = self.clock()
        state = self.sources.note_failed(fetch, message, now, is_to_blame=is_to_blame)
        self.audit(
            "fetch_failed",
            study=fetch.study_uid,
            source=self.name,
            state=state,
            reason=reason,
            message=message,
        )

    def _server(self) -> Server:
        """Get ready to ask; the token is read anew, for it may have been changed."""
        source, n_bytes = self.source, int(self.config.node.max_object_mb * 1e6)
        limits = Limits(instance_bytes=n_bytes, timeout_s=source.timeout_s)
        return Server(
            source.url, token_file=source.token_file, ca=source.ca, limits=limits, pause=self.pause
        )

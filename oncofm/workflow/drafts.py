"""Cases in the making: the volumes of an input, before their lesions are known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oncofm.errors import (
    LocalizerError,
    NoSeedsError,
    NotCTError,
    Rejected,
    SecondaryCaptureError,
)
from oncofm.imaging.dicom_series import ct_volumes
from oncofm.imaging.scan import SeriesRecord
from oncofm.imaging.volume import Volume
from oncofm.notices import Notice
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.case import Case, InputVerdict

_NO_CANDIDATES = (LocalizerError, SecondaryCaptureError, NotCTError)
"""Series that nobody expects features of: they are listed, but they are no cases."""


@dataclass
class Draft:
    """A case while its lesions are gathered."""

    case_id: str
    study_uid: str = ""
    series_uid: str = ""
    modality: str = ""
    volume: Volume | None = None
    error: Rejected | None = None
    notices: list[Notice] = field(default_factory=list)
    lesions: list[Seed | RejectedSeed] = field(default_factory=list)

    def finish(self) -> Case:
        """Freeze it; a volume without lesions is a case that says so."""
        error = self.error
        if error is None and not self.lesions:
            error = NoSeedsError(
                f"Nothing says where the lesions of volume {self.case_id} are; add a DICOM SEG, "
                "RTSTRUCT or SR that refers to it, or name its lesions as seeds "
                "(--seeds, or columns of a manifest)."
            )
        return Case(
            case_id=self.case_id,
            study_uid=self.study_uid,
            series_uid=self.series_uid,
            modality=self.modality,
            volume=self.volume,
            seeds=tuple(self.lesions),
            error=error,
            notices=tuple(self.notices),
        )


@dataclass(frozen=True)
class Pool:
    """The volumes of the inputs, and the series that gave none.

    Attributes
    ----------
    drafts : dict of str to Draft
        Volume id -> case to be, also for volumes that cannot be used.
    left_out : dict of str to InputVerdict
        Series UID -> why that series is no candidate at all.
    """

    drafts: dict[str, Draft]
    left_out: dict[str, InputVerdict]

    @property
    def volumes(self) -> dict[str, Volume]:
        """The usable ones by id."""
        return {key: draft.volume for key, draft in self.drafts.items() if draft.volume}


def find_volumes(series: Sequence[SeriesRecord], files: Sequence[Path]) -> Pool:
    """Make a draft of every CT volume, usable or not.

    Parameters
    ----------
    series : sequence of SeriesRecord
        From a scan; SEG, RTSTRUCT and SR among them are passed over.
    files : sequence of pathlib.Path
        Volume files.
    """
    pool = Pool({}, {})
    for record in series:
        if record.modality not in ("SEG", "RTSTRUCT", "SR"):
            _add_series(pool, record)
    for path in files:
        same_name = sum(1 for other in pool.drafts if other.split("#")[0] == path.name)
        draft = _open_file(path, f"{path.name}#{same_name + 1}" if same_name else path.name)
        pool.drafts[draft.case_id] = draft
    return pool


def _add_series(pool: Pool, record: SeriesRecord) -> None:
    found = ct_volumes(record)
    for volume in found.volumes:
        pool.drafts[volume.volume_id] = Draft(
            case_id=volume.volume_id,
            study_uid=volume.study_uid,
            series_uid=volume.series_uid,
            modality="CT",
            volume=volume,
            notices=list(volume.notices),
        )
    for volume_id, error in found.rejected:
        if isinstance(error, _NO_CANDIDATES):
            pool.left_out[record.series_uid] = InputVerdict(
                "series", volume_id, error, record.modality, record.study_uid
            )
        else:
            pool.drafts[volume_id] = Draft(
                case_id=volume_id,
                study_uid=record.study_uid,
                series_uid=record.series_uid,
                modality=record.modality,
                error=error,
            )


def _open_file(path: Path, case_id: str) -> Draft:
    from oncofm.imaging.volume_file import VolumeFile

    try:
        return Draft(case_id=case_id, modality="CT", volume=VolumeFile(path))
    except Rejected as error:
        return Draft(case_id=case_id, modality="CT", error=error)

"""One run of an MHub workflow: what its modules hand to each other.

The modules under ``mhub/`` are thin; the work between them is done here. This context hangs on
mhubio's configuration object, which every module of a run shares. Cases are also published as
mhubio instances with their files, so that modules of other origin can work between ours.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oncofm.biomarkers.head import Head
from oncofm.encoders.encoder import Encoder
from oncofm.errors import WorkflowInvalidError
from oncofm.results.files import prepare_output_folder
from oncofm.workflow.case import CaseOutcome
from oncofm.workflow.gather import Worklist, gather
from oncofm.workflow.job import JobResult, Report, encode, start_loading
from oncofm.workflow.mhub.table import write_mhub_features
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import Survey
from oncofm.workflow.timing import Timing
from oncofm.workflow.write import check_free_space, write_results


@dataclass
class WorkflowContext:
    """What the modules of one workflow run share.

    Attributes
    ----------
    settings : Settings
        Each module sets what it is configured with.
    survey : Survey or None
        What an importer found.
    worklist : Worklist or None
        The cases, once their lesions are read.
    outcomes : list of CaseOutcome
        How they ended.
    encoder : Encoder or None
        Loaded once.
    heads : tuple of Head
        Biomarkers to predict, loaded.
    result : JobResult or None
        What was written.
    output : pathlib.Path or None
        Where results will go, if that is known before any work.
    case_tables : dict of str to pathlib.Path
        Case id -> its own ``features.csv``.
    timing : Timing
        Seconds per step.
    report : callable
        Takes progress events.
    """

    settings: Settings = field(default_factory=Settings)
    survey: Survey | None = None
    worklist: Worklist | None = None
    outcomes: list[CaseOutcome] = field(default_factory=list)
    encoder: Encoder | None = None
    heads: tuple[Head, ...] = ()
    result: JobResult | None = None
    output: Path | None = None
    case_tables: dict[str, Path] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    report: Report = lambda event: None
    _load_encoder: Callable[[], Encoder] | None = None
    _scratch: tempfile.TemporaryDirectory | None = None

    @property
    def scratch(self) -> Path:
        """Folder for files between modules."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="oncofm-")
        return Path(self._scratch.name)

    def close(self) -> None:
        """Remove the files between modules."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def configure(self, **settings: Any) -> None:
        """Set some of the settings.

        Raises
        ------
        SettingInvalidError
            If one has a value that it cannot have.
        """
        self.settings = replace(self.settings, **settings)

    def read_seeds(self) -> Worklist:
        """Read the lesions of the survey."""
        if self.survey is None:
            raise WorkflowInvalidError(
                "No importer ran before the seeds are read; put DicomCTImporter or "
                "StructureImporter first in the workflow."
            )
        with self.timing.part("read_seeds"):
            self.worklist = gather(self.survey, self.settings)
        return self.worklist

    def start_loading(self) -> Callable[[], Encoder]:
        """Load the encoder in the background, once.

        Raises
        ------
        WeightsMissingError
            At once, if there is no weights file.
        """
        if self._load_encoder is None:
            loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
            self._load_encoder = start_loading(loader, self.settings, self.timing)
            loader.shutdown(wait=False)
        return self._load_encoder

    def encode(self) -> None:
        """Compute the features of every lesion, batched over all cases.

        Raises
        ------
        HeadMismatchError
            If a head was not made for the features of this run.
        """
        worklist = self._worklist()
        if self.output is not None:
            check_free_space(self.output, worklist, self.settings)
        load_encoder = self.start_loading()
        self.outcomes = encode(
            worklist, load_encoder, self.settings, self.timing, self.report, self.heads
        )
        self.encoder = load_encoder()

    def write(self, output: Path) -> JobResult:
        """Write the tables, the manifest, and ``<case>/features.csv`` for every case.

        Parameters
        ----------
        output : pathlib.Path
            Folder for the results.
        """
        worklist = self._worklist()
        if self.encoder is None:
            raise WorkflowInvalidError(
                "No features were computed; put FeatureExtractor before ResultExporter."
            )
        prepare_output_folder(output)
        with self.timing.part("write_case_tables"):
            tables = {o.case.case_id: write_mhub_features(o, output) for o in self.outcomes}
        self.case_tables = {case_id: path for case_id, path in tables.items() if path}
        manifest = write_results(
            output,
            worklist,
            self.outcomes,
            self.encoder,
            self.settings,
            self.timing,
            self.heads,
        )
        self.report({"event": "end", **manifest.summary.model_dump()})
        self.result = JobResult(manifest, tuple(self.outcomes), worklist.verdicts)
        return self.result

    def _worklist(self) -> Worklist:
        if self.worklist is None:
            raise WorkflowInvalidError("The seeds were not read; put SeedExtractor earlier.")
        return self.worklist


def context_of(config: Any) -> WorkflowContext:
    """Get the context of a workflow run, a new one for its first module.

    Parameters
    ----------
    config : mhubio.core.Config
        What all modules of a run share.
    """
    if not hasattr(config, "oncofm_context"):
        config.oncofm_context = WorkflowContext()
    return config.oncofm_context

"""Write what came out: a table per instance, the tables of the run, its manifest."""

from pathlib import Path

from mhubio.core import IO, Module

from oncofm.results.files import prepare_output_folder
from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.mhub.instances import publish_features
from oncofm.workflow.write import check_predecessors


@IO.Config("output_dir", str, "output_data", the="folder for the results")
@IO.Config("sr", str, "none", the="DICOM SR: none, auto, segment, point or both")
@IO.Config("sr_features", str, "none", the="full: one more DICOM SR per lesion, with all features")
@IO.Config("revises", str, "", the="DICOM SR, or folder of them, that the new ones revise")
@IO.Config("key_images", bool, False, the="a DICOM picture of every lesion")
@IO.Config("report", bool, False, the="a page to read, report.html")
class ResultExporter(Module):
    """``<instance>/features.csv``, ``features.parquet``, ``cases.csv``, ``run.json``."""

    output_dir: str
    sr: str
    sr_features: str
    revises: str
    key_images: bool
    report: bool

    def check(self) -> None:
        """Find an output folder that cannot be written before any work."""
        base, context = Path(self.config.data.abspath), context_of(self.config)
        context.output = base / self.output_dir
        prepare_output_folder(context.output)
        context.configure(
            sr=self.sr,
            sr_features=self.sr_features,
            revises=base / self.revises if self.revises else None,
            key_images=self.key_images,
            report=self.report,
        )
        check_predecessors(context.output, context.settings)

    def task(self) -> None:
        """Write every file, atomically; ``run.json`` comes last."""
        context = context_of(self.config)
        context.write(Path(self.config.data.abspath) / self.output_dir)
        publish_features(self.config.data, context.case_tables)

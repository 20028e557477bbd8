"""Write what came out: a table per instance, the tables of the run, its manifest."""

from pathlib import Path

from mhubio.core import IO, Module

from oncofm.results.files import prepare_output_folder
from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.mhub.instances import publish_features


@IO.Config("output_dir", str, "output_data", the="folder for the results")
@IO.Config("sr", str, "none", the="DICOM SR: none, auto, segment, point or both")
class ResultExporter(Module):
    """``<instance>/features.csv``, ``features.parquet``, ``cases.csv``, ``run.json``."""

    output_dir: str
    sr: str

    def check(self) -> None:
        """Find an output folder that cannot be written before any work."""
        folder = Path(self.config.data.abspath) / self.output_dir
        prepare_output_folder(folder)
        context_of(self.config).configure(sr=self.sr)
        context_of(self.config).output = folder

    def task(self) -> None:
        """Write every file, atomically; ``run.json`` comes last."""
        context = context_of(self.config)
        context.write(Path(self.config.data.abspath) / self.output_dir)
        publish_features(self.config.data, context.case_tables)

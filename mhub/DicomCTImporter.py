"""Find CT series and the SEG, RTSTRUCT, SR and JSON files that belong to them, in place."""

from pathlib import Path

from mhubio.core import IO, Module

from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.mhub.instances import publish_cases
from oncofm.workflow.survey import survey_inputs


@IO.Config("source_dir", str, "input_data", the="folder or zip archive that holds the DICOM files")
class DicomCTImporter(Module):
    """One instance per CT volume. Files are read where they lie; none is copied or changed."""

    source_dir: str

    def task(self) -> None:
        """Look at the headers, group them by UID, make the instances."""
        context = context_of(self.config)
        source = Path(self.config.data.abspath) / self.source_dir
        with context.timing.part("import"):
            context.survey = survey_inputs([source])
            publish_cases(self.config.data, context.survey, context.scratch)

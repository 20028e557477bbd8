"""Find volumes and annotations in folders that are laid out alike, one per case, in place."""

from pathlib import Path

from mhubio.core import IO, Module

from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.mhub.instances import publish_cases
from oncofm.workflow.survey import survey_structure


@IO.Config("source_dir", str, "input_data", the="folder that holds the cases")
@IO.Config("structures", list, [], the="patterns of the paths below it, in MHub's notation")
@IO.Config("import_id", str, "patientID", the="placeholder of the patterns that names the case")
class StructureImporter(Module):
    """One instance per case, also for a case whose volume or annotation is missing."""

    source_dir: str
    structures: list
    import_id: str

    def task(self) -> None:
        """Match the patterns, make the instances."""
        context = context_of(self.config)
        source = Path(self.config.data.abspath) / self.source_dir
        patterns = [str(pattern) for pattern in self.structures]
        with context.timing.part("import"):
            context.survey = survey_structure(source, patterns, self.import_id)
            publish_cases(self.config.data, context.survey, context.scratch, self.import_id)

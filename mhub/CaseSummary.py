"""Say what is done and what is not, and let the exit code say it too."""

import sys

from mhubio.core import Module

from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.summary import summarise


class CaseSummary(Module):
    """mhubio ends with 0 whatever happens in an instance; a failed one must be seen."""

    def task(self) -> None:
        """Print the summary; end the process unless every case is done."""
        result = context_of(self.config).result
        if result is None:
            sys.exit("CaseSummary needs ResultExporter before it in the workflow.")
        for line in summarise(result):
            print(line, file=sys.stderr)
        if result.manifest.summary.exit_code:
            sys.exit(result.manifest.summary.exit_code)

"""Workflows through the entry point of the image, in this process."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FEATURES = [f"feature_{index}" for index in range(4096)]
WHAT_ABOUT = ["Mhub ROI", "Centroid", "Image", "MHub Metadata"]
"""Columns behind the features."""


@dataclass(frozen=True)
class WorkflowRun:
    """What a run of a workflow left behind."""

    code: int
    output: Path

    def table(self, case_id: str) -> pd.DataFrame:
        """``<case>/features.csv`` as its users read it."""
        table = pd.read_csv(self.output / case_id / "features.csv")
        assert list(table.columns) == [*FEATURES, *WHAT_ABOUT]
        return table

    def tables(self) -> set[str]:
        """The cases that have one."""
        return {path.parent.name for path in self.output.glob("*/features.csv")}

    def cases(self, level: str = "case") -> pd.DataFrame:
        """Rows of ``cases.csv``."""
        cases = pd.read_csv(self.output / "cases.csv", keep_default_na=False, dtype=str)
        return cases.query("level == @level").reset_index(drop=True)

    def rows(self) -> pd.DataFrame:
        """Read ``features.parquet``: every lesion that is done, with its seed."""
        return pd.read_parquet(self.output / "features.parquet")

    def seeds_mm(self) -> list[list[float]]:
        """LPS positions, in the order of the rows."""
        return self.rows()[["seed_x_mm", "seed_y_mm", "seed_z_mm"]].to_numpy().tolist()


def run_workflow(name: str, base: Path, *overrides: str) -> WorkflowRun:
    """Run ``mhub.run --workflow NAME`` on ``base/input_data`` into ``base/output_data``."""
    from oncofm.cli.mhub_run import run
    from oncofm.cli.process import guarded

    arguments = ["--workflow", name, "--non-interactive"]
    changes = [f"general.data_base_dir={base}", *overrides]
    arguments += [f"--config:{change}" for change in changes]
    return WorkflowRun(guarded(lambda: run(arguments), "mhub.run"), base / "output_data")

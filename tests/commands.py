"""What a command left behind: exit code, words, and the files in its output folder."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class CliResult:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str
    output: Path

    @property
    def cases(self) -> list[dict[str, str]]:
        with (self.output / "cases.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def manifest(self) -> dict:
        return json.loads((self.output / "run.json").read_text(encoding="utf-8"))

    @property
    def features(self) -> pd.DataFrame:
        return pd.read_parquet(self.output / "features.parquet")

    def rows(self, level: str) -> list[dict[str, str]]:
        return [row for row in self.cases if row["level"] == level]

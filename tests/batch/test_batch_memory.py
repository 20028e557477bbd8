"""Memory of a batch does not grow with its length."""

import subprocess
import sys

import pytest
from batches import write_manifest, write_volume
from test_batch_killed import PROGRAM, PYTHONPATH

PEAK = """
import runpy, sys
try:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


def peak_mib(tmp_path, n_cases):
    write_volume(tmp_path / "v.mha")
    rows = [f"case-{number},v.mha,{lesion},0,0" for number in range(n_cases) for lesion in (0, 1)]
    path = write_manifest(tmp_path / "m.csv", "case_id,image_path,coordX,coordY,coordZ", *rows)
    output = tmp_path / f"out-{n_cases}"
    command = [sys.executable, "-c", PEAK, str(PROGRAM), "here", str(path), str(output)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": PYTHONPATH}
    )
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.slow
def test_four_hundred_cases_take_no_more_than_twenty(tmp_path):
    assert peak_mib(tmp_path, 400) - peak_mib(tmp_path, 20) < 40

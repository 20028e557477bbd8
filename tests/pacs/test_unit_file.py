"""The unit file, checked by systemd itself."""

import re
import subprocess
import sys
from pathlib import Path

from tools import require_tool

UNIT = Path(__file__).parents[2] / "utils" / "pacs" / "oncofm-pacs.service"
MOST_EXPOSED = 2.0
"""On systemd's scale from 0 to 10, where up to 2 is safe for a service of this kind."""


def test_systemd_accepts_the_unit(tmp_path):
    analyze = require_tool("systemd-analyze")
    place = tmp_path / UNIT.name
    program = Path(sys.executable).with_name("oncofm")
    place.write_text(UNIT.read_text().replace("/opt/oncofm/bin/oncofm", str(program)))
    done = subprocess.run([analyze, "verify", place], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_exposes_little():
    analyze = require_tool("systemd-analyze")
    command = [analyze, "security", "--offline=yes", "--no-pager", UNIT]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
    assert found is not None, said[-500:]
    assert float(found[1]) <= MOST_EXPOSED

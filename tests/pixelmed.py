"""PixelMed's validator of structured reports."""

import os
import subprocess
from pathlib import Path

import pytest
from tools import require_tool

JAR = Path("/usr/share/java/pixelmed.jar")
_OPTIONS = [
    f"-Djdk.xml.xpath{limit}=0" for limit in ("ExprOpLimit", "TotalOpLimit", "ExprGrpLimit")
]
"""Its templates are larger than what Java lets a style sheet be."""


def validate_sr(path: Path) -> list[str]:
    """Return what the validator says about a report, line by line."""
    java = require_tool("java")
    if not JAR.exists():
        message = f"TOOL MISSING: {JAR} is not installed, what it judges goes untested"
        if os.environ.get("ONCOFM_REQUIRE_TOOLS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    command = [java, *_OPTIONS, "-cp", str(JAR), "com.pixelmed.validate.DicomSRValidator"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).splitlines()

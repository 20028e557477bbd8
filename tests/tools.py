"""Outside programs that tests use as judges."""

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """Path of a program; without it the test is skipped, or fails if ONCOFM_REQUIRE_TOOLS=1."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")  # of daemons
    if path is None:
        message = f"TOOL MISSING: {name} is not installed, what it judges goes untested"
        if os.environ.get("ONCOFM_REQUIRE_TOOLS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path

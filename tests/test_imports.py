"""Imports that leave out what a library would load for others."""

import subprocess
import sys

import pytest

from oncofm.imports import import_without


def test_a_module_is_imported_as_if_the_other_were_not_installed(tmp_path, monkeypatch):
    (tmp_path / "unwanted_one.py").write_text("")
    (tmp_path / "wanted_one.py").write_text(
        "try:\n    import unwanted_one\nexcept ImportError:\n    unwanted_one = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert import_without("unwanted_one", "wanted_one").unwanted_one is None
    import unwanted_one  # type: ignore[import-not-found]

    del sys.modules["wanted_one"]
    assert import_without("unwanted_one", "wanted_one").unwanted_one is unwanted_one


def test_what_cannot_do_without_fails_and_leaves_no_trace(tmp_path, monkeypatch):
    (tmp_path / "needs_it.py").write_text("import unwanted_two\n")
    (tmp_path / "unwanted_two.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError):
        import_without("unwanted_two", "needs_it")
    assert not {"unwanted_two", "needs_it"} & set(sys.modules)


def test_a_job_is_there_before_what_it_works_with():
    code = (
        "import sys, oncofm.workflow.job\n"
        "print(sorted({'numpy', 'pydicom', 'pyarrow', 'pydantic'} & set(sys.modules)))\n"
        "import oncofm.imaging.scan\n"
        "print('pydicom' in sys.modules, 'requests' in sys.modules)\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines() == ["[]", "True False"]

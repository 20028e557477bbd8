"""The data files are found in a source checkout and in an installed package."""

import pytest

from oncofm import resources


@pytest.mark.parametrize("places", [["wheel"], ["source"], ["wheel", "source"]])
def test_both_places(tmp_path, monkeypatch, places):
    folders = {
        "wheel": tmp_path / "oncofm" / "_data" / "models",
        "source": tmp_path / "models",
    }
    for place in places:
        folders[place].mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "oncofm")

    assert resources.resource_dir("models") == folders[places[0]]


def test_an_incomplete_installation(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "oncofm")
    with pytest.raises(FileNotFoundError, match="install it again"):
        resources.resource_dir("config")

"""Point files that lie among the images."""

import zipfile

import pytest
from studies import GRID

from oncofm.demo.dicom import write_ct_series
from oncofm.demo.markups import write_centroid
from oncofm.demo.phantom import chest_scene
from oncofm.workflow.gather import gather
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import survey_inputs

POINTS = Settings(seed_kinds=("points",))


@pytest.fixture
def folder(tmp_path):
    write_ct_series(tmp_path / "in" / "ct", chest_scene(0), **GRID)
    return tmp_path / "in"


def test_a_point_file_inside_an_archive_is_a_rejected_case(folder, tmp_path):
    """It is not read there, which must be seen and must not end the run."""
    write_centroid(folder / "points.json", (0, 0, 0))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
    worklist = gather(survey_inputs([tmp_path / "all.zip"]), POINTS)
    states = {case.case_id: case.error and case.error.code for case in worklist.cases}
    assert states.pop("points.json") == "seed_file_invalid"
    assert list(states.values()) == ["no_seeds"]


def test_a_point_file_that_nobody_asked_for_is_passed_over(folder):
    (folder / "notes.json").write_text('{"author": 1}')
    worklist = gather(survey_inputs([folder]), Settings())
    assert [case.error and case.error.code for case in worklist.cases] == ["no_seeds"]
    assert [file.name.rsplit("/")[-1] for file in worklist.skipped] == ["notes.json"]

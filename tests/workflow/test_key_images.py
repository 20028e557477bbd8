"""Key images and revisions of a run, from the command line."""

import pydicom
import pytest
from heads import write_head
from studies import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("key_images") / "study", "key images", seed=3)


def datasets(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def test_a_picture_of_every_lesion_with_what_is_predicted(study, cli, tmp_path, monkeypatch):
    seen = []
    from oncofm.results import key_image

    draw = key_image.key_picture

    def record(volume, seed, lines):
        seen.append((seed.lesion_id, list(lines)))
        return draw(volume, seed, lines)

    monkeypatch.setattr(key_image, "key_picture", record)
    write_head(tmp_path / "two", n_features=4096)
    arguments = ("--head", tmp_path / "two", "--key-images")
    result = cli("run", study.folder, *arguments, tmp_path / "out")
    assert result.code == 0
    pictures = datasets(result.output / "key_images")
    assert [picture.InstanceNumber for picture in pictures] == [1, 2, 3]
    assert len({picture.SeriesInstanceUID for picture in pictures}) == 1
    assert {picture.StudyInstanceUID for picture in pictures} == {
        pydicom.dcmread(study.ct_files[0]).StudyInstanceUID
    }
    uids = sorted(picture.SOPInstanceUID for picture in pictures)
    assert result.manifest["reports"]["key_image_uids"] == uids
    assert [lesion_id for lesion_id, _ in seen] == ["segment-1", "segment-2", "segment-3"]
    assert all(lines[0].startswith("RANDOM WEIGHTS") for _, lines in seen)
    assert all(lines[1].startswith("A test (two): benign ") for _, lines in seen)
    again = cli("run", study.folder, tmp_path / "out")
    assert again.code == 0
    assert not list((again.output / "key_images").iterdir())


def test_a_report_revises_that_of_an_earlier_run(study, cli, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    first = cli("run", study.folder, "--sr", "auto", tmp_path / "first")
    arguments = ("--sr", "auto", "--sr-revises", first.output / "sr", "--head", tmp_path / "two")
    second = cli("run", study.folder, *arguments, tmp_path / "second")
    assert second.code == 0
    (old,), (new,) = datasets(first.output / "sr"), datasets(second.output / "sr")
    (study_item,) = new.PredecessorDocumentsSequence
    (series_item,) = study_item.ReferencedSeriesSequence
    (instance,) = series_item.ReferencedSOPSequence
    assert instance.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.SeriesInstanceUID == old.SeriesInstanceUID


@pytest.mark.parametrize(
    ("revises", "sentence"),
    [
        ("out", "would be overwritten"),
        ("out/sr", "would be overwritten"),
        ("nowhere", "does not exist"),
    ],
)
def test_reports_to_revise_must_be_there_and_stay_there(study, cli, tmp_path, revises, sentence):
    (tmp_path / "out/sr").mkdir(parents=True)
    arguments = ("--sr", "auto", "--sr-revises", tmp_path / revises)
    result = cli("run", study.folder, *arguments, tmp_path / "out")
    assert result.code == 1
    assert sentence in result.stderr


def test_nothing_to_revise_without_reports(study, cli, tmp_path):
    result = cli("run", study.folder, "--sr-revises", tmp_path, tmp_path / "out")
    assert result.code == 1
    assert "no reports are asked for" in result.stderr

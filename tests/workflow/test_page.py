"""``oncofm run --report``: a page that says what the tables say."""

import base64
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from heads import write_head
from PIL import Image
from results.pages import parse
from studies import cut, edit_file, write_study

from oncofm.errors import OutputNotWritableError
from oncofm.imaging.dicom_series import DicomSeries, ct_volumes
from oncofm.imaging.scan import scan_dicom
from oncofm.results.manifest import RESEARCH_USE, RunManifest
from oncofm.results.overlay_drawing import PANEL_PX, panel_corner_px
from oncofm.seeds.seed import Seed, SeedSource
from oncofm.workflow import page as page_module
from oncofm.workflow.case import Case, CaseOutcome, CaseState, LesionOutcome
from oncofm.workflow.page import write_page


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("page") / "study", "page", seed=5)


def page_of(result):
    return parse((result.output / "report.html").read_text(encoding="utf-8"))


def cards(root):
    return list(root.every("article", class_="lesion"))


def pictures(card) -> list[np.ndarray]:
    sources = [node["src"].removeprefix("data:image/webp;base64,") for node in card.every("img")]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def test_page_says_what_the_tables_say(study, cli, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")
    (tmp_path / "in" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes(7))
    write_head(tmp_path / "two", n_features=4096)
    write_head(tmp_path / "three", n_outputs=3, n_features=4096)
    heads = ("--head", tmp_path / "two", "--head", tmp_path / "three")
    result = cli("run", tmp_path / "in", "--report", *heads, "--sr", "auto", tmp_path / "out")
    assert result.code == 2
    root = page_of(result)
    manifest = result.manifest
    assert RESEARCH_USE in root.only("header", class_="statement").text
    assert manifest["model"]["weights"] in root.only("div", class_="alarm").text
    run = root.only("section", id="run")
    assert run.facts["Weights SHA-256"].text == manifest["model"]["weights_sha256"]
    assert run.facts["Configuration hash"].text == manifest["configuration_hash"]
    assert run.facts["Peak memory"].numbers == [manifest["peak_memory_mib"]]

    features = result.features
    assert len(cards(root)) == len(features) == 3
    predicted = pd.read_csv(result.output / "predictions.csv")
    for card, (_, lesion) in zip(cards(root), features.iterrows(), strict=True):
        seed_mm = [lesion[f"seed_{axis}_mm"] for axis in "xyz"]
        assert card.facts["Seed, LPS"].numbers == seed_mm
        assert card.facts["Tracking UID"].text == lesion.tracking_uid
        assert card.facts["Annotation UID"].text == lesion.seg_uid
        assert card.facts["Case"].text == lesion.case_id
        assert lesion.segment_label in card.only("h3").text
        said = predicted[predicted.lesion_id == lesion.lesion_id].probability
        shown = [
            block.numbers[: len(list(block.every("svg")))]
            for block in card.every("section", class_="prediction")
        ]
        np.testing.assert_allclose(np.concatenate(shown), said)
        assert len(pictures(card)) == 3
    assert "unreadable_file" in root.only("section", id="left-out").text
    links = {link["href"] for link in root.only("section", id="files").every("a")}
    files = {
        f"./{path.relative_to(result.output)}"
        for path in result.output.rglob("*")
        if path.is_file() and path.name != "report.html"
    }
    assert links == files


def test_pictures_are_the_panels_of_the_overlay(study, cli, tmp_path):
    result = cli("run", study.folder, "--report", tmp_path / "out")
    cli("seeds", study.folder, "--overlay", tmp_path / "overlays", "-o", tmp_path / "s.csv")
    overlays = sorted((tmp_path / "overlays").iterdir())
    for card, path in zip(cards(page_of(result)), overlays, strict=True):
        overlay = np.asarray(Image.open(path)).astype(float)
        for number, picture in enumerate(pictures(card)):
            left, top = panel_corner_px(number)
            panel = overlay[top : top + PANEL_PX, left : left + PANEL_PX]
            assert picture.shape == panel.shape
            assert np.abs(picture - panel).mean() < 6


def test_no_name_of_the_patient_is_on_the_page(study, cli, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")

    def name(ds):
        ds.PatientName, ds.PatientID, ds.AccessionNumber = "Secret^Name", "ID-47-11", "ACC-0815"
        ds.StudyDescription, ds.PatientBirthDate = "Secret study", "19410203"

    for path in (tmp_path / "in").rglob("*.dcm"):
        edit_file(path, name)
    source = cli("run", tmp_path / "in", "--report", tmp_path / "out").output / "report.html"
    text = source.read_text(encoding="utf-8")
    for word in ("Secret", "ID-47-11", "ACC-0815", "19410203"):
        assert word not in text


def test_the_same_run_gives_the_same_page(study, cli, tmp_path):
    result = cli("run", study.folder, "--report", tmp_path / "out")
    manifest = RunManifest(**result.manifest)
    first = (result.output / "report.html").read_bytes()
    again = cli("run", study.folder, "--report", tmp_path / "out")
    second = (again.output / "report.html").read_bytes()

    def without_clock(page: bytes, of: RunManifest) -> list[str]:
        changing = ("Time", "Peak memory", "Finished")
        root = parse(page.decode())
        for name in changing:
            root.only("section", id="run").facts[name].children.clear()
        return [root.text.replace(of.finished_at.replace("T", " ").replace("+00:00", " UTC"), "")]

    assert without_clock(first, manifest) == without_clock(second, RunManifest(**again.manifest))
    assert pictures(cards(page_of(again))[0])[0].tobytes()


def outcome_of(study, n_lesions: int = 3):
    """A case whose lesions are done, in the middle of its volume, and its manifest."""
    (series,) = scan_dicom(study.folder / "ct").series
    (volume,) = ct_volumes(series).volumes
    middle = volume.geometry.affine @ [*(np.array(volume.geometry.shape) // 2), 1]
    x, y, z = middle[:3].tolist()
    lesions = tuple(
        LesionOutcome(Seed(f"point-{number}", (x, y, z), SeedSource("table")), CaseState.DONE)
        for number in range(1, n_lesions + 1)
    )
    case = Case(series.series_uid, volume=volume)
    return CaseOutcome(case, CaseState.DONE, lesions=lesions)


@pytest.fixture
def written(study, cli, tmp_path):
    """Write a page from outcomes, with the manifest of another run."""
    manifest = RunManifest(**cli("run", study.folder, tmp_path / "run").manifest)

    def write(*outcomes):
        path = tmp_path / "page" / "report.html"
        path.parent.mkdir(exist_ok=True)
        write_page(path, outcomes, (), manifest, ())
        return parse(path.read_text(encoding="utf-8"))

    return write


def test_pictures_end_where_the_page_is_full(study, written, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_PREVIEWS", 2)
    first, second, third = cards(written(outcome_of(study)))
    assert len(pictures(first)) == len(pictures(second)) == 3
    note = third.only("p", class_="note").text
    assert "the first 2 lesions" in note
    assert "oncofm seeds INPUT -o seeds.csv --overlay FOLDER" in note
    monkeypatch.setattr(page_module, "MOST_PREVIEW_BYTES", 1000)
    n_pictures = [len(pictures(card)) for card in cards(written(outcome_of(study)))]
    assert n_pictures == [3, 0, 0]


def test_a_picture_that_cannot_be_drawn_is_a_sentence(study, tmp_path, written):
    shutil.copytree(study.folder, tmp_path / "in")
    broken = type(study)(tmp_path / "in", study.scene, [], study.seg_file)
    outcome = outcome_of(broken, n_lesions=1)
    for path in (tmp_path / "in" / "ct").iterdir():
        cut(path, 0.6)
    (card,) = cards(written(outcome))
    note = card.only("p", class_="note").text
    assert note.startswith("There is no picture of point-1: ")
    assert "decode" in note or "read" in note
    assert not pictures(card)


def test_a_picture_that_fails_does_not_stop_the_page(study, written, monkeypatch):
    def fail(volume, seed):
        raise ZeroDivisionError("Secret^Name")

    monkeypatch.setattr(page_module, "draw_preview", fail)
    for card in cards(written(outcome_of(study))):
        note = card.only("p", class_="note").text
        assert "drawing it failed (ZeroDivisionError); run again with --debug" in note
        assert "Secret" not in note


def test_rejected_lesions_have_a_reason_and_no_picture(study, written):
    outcome = outcome_of(study, n_lesions=1)
    seed = outcome.lesions[0].seed
    lesion = LesionOutcome(seed, CaseState.REJECTED, "no_voxels", "Lesion point-1 is empty.")
    partial = CaseOutcome(outcome.case, CaseState.REJECTED, "no_voxels", "1 of 1.", (lesion,))
    root = written(partial)
    (card,) = cards(root)
    assert "Lesion point-1 is empty." in card.text
    assert not pictures(card)
    assert not list(card.every("p", class_="note"))
    assert "no_voxels" in root.only("section", id="left-out").text


def test_voxels_are_released(study, written, monkeypatch):
    released = []
    monkeypatch.setattr(DicomSeries, "release", lambda self: released.append(self.volume_id))
    outcome = outcome_of(study)
    written(outcome, outcome)
    assert released == [outcome.case.case_id] * 2
    released.clear()
    monkeypatch.setattr(page_module, "MOST_LESIONS", 2)
    assert len(cards(written(outcome))) == 2
    assert released == [outcome.case.case_id]


def test_page_that_cannot_be_written(study, cli, tmp_path):
    manifest = RunManifest(**cli("run", study.folder, tmp_path / "run").manifest)
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        write_page(tmp_path / "absent" / "report.html", (), (), manifest, ())

"""Items of a batch that are on a DICOMweb server."""

import tempfile

import pandas as pd
import pydicom
import pytest
from batches import write_manifest
from orthanc import run_orthanc
from web_server import SERIES, STUDY, Reply, run_web_server

from oncofm.dicomweb.server import Server
from oncofm.errors import WebRefusedError
from oncofm.results.table import FEATURE_PREFIX
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.manifest_file import manifest_items
from oncofm.workflow.batch.reader import ItemFailed, read_item
from oncofm.workflow.batch.remote import discard
from oncofm.workflow.settings import Settings

URL = f"https://host/dicom-web/studies/{STUDY}/series/{SERIES}"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A temporary folder that nothing may be left in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def stored(studies_written, tmp_path_factory):
    """Two of the tiny studies in Orthanc, and their addresses by kind."""
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        addresses = []
        for number in range(2):
            folder = studies_written / f"study-{number}"
            files = sorted(folder.rglob("*.dcm"))
            orthanc.store(files)
            annotation = pydicom.dcmread(folder / "lesions.dcm")
            image = pydicom.dcmread(files[0] if files[0].parent.name == "ct" else files[-1])
            study = f"{orthanc.http}/dicom-web/studies/{image.StudyInstanceUID}"
            addresses.append(
                {
                    "folder": folder,
                    "study": study,
                    "ct": f"{study}/series/{image.SeriesInstanceUID}",
                    "rtstruct": f"{study}/series/{annotation.SeriesInstanceUID}/instances/"
                    f"{annotation.SOPInstanceUID}",
                }
            )
        yield addresses


def features(run) -> pd.DataFrame:
    return pd.read_parquet(run.output / "features.parquet")


def test_addresses_give_what_folders_give(batch, stored, tmp_path, temporary):
    first, second = stored
    by_web = write_manifest(
        tmp_path / "web.csv",
        "case_id,image_path,seeds_path",
        f"0,{first['study']},",
        f"1,{second['ct']},{second['rtstruct']}",
    )
    run = batch(by_web, "web")
    assert run.result.exit_code == 0
    rows = [f"{number},{one['folder']}" for number, one in enumerate(stored)]
    here = write_manifest(tmp_path / "here.csv", "case_id,image_path", *rows)
    pd.testing.assert_frame_equal(features(run), features(batch(here, "here")))
    assert batch(by_web, "web", resume=True).n_computed == 0


def test_reports_and_pictures_of_what_is_on_a_server(batch, stored, tmp_path):
    manifest = write_manifest(tmp_path / "m.csv", "image_path", stored[0]["study"])
    left = tmp_path / "out" / "fetched" / "9"
    left.mkdir(parents=True)
    run = batch(manifest, settings=Settings(sr="auto", key_images=True))
    assert run.result.exit_code == 0
    assert len(list(run.output.glob("sr/*.dcm"))) == 1
    assert len(list(run.output.glob("key_images/*.dcm"))) == len(features(run)) > 0
    assert not (run.output / "fetched").exists()


def test_points_on_a_server(batch, stored, tmp_path):
    table = features(batch(stored[0]["folder"], "alone"))
    point = [str(table[f"seed_{axis}_mm"][0]) for axis in "xyz"]
    manifest = write_manifest(
        tmp_path / "m.csv",
        "case_id,image_path,coordX,coordY,coordZ",
        ",".join(["a", stored[0]["ct"], *point]),
        ",".join(["b", str(stored[1]["folder"] / "ct"), *point]),
    )
    run = batch(manifest)
    assert [row["state"] for row in run.rows("case")] == ["done", "done"]
    columns = [name for name in table.columns if name.startswith(FEATURE_PREFIX)]
    assert len(columns) == 64
    assert (features(run)[columns].iloc[0] == table[columns].iloc[0]).all()


def test_lesions_on_a_server_for_a_folder(batch, stored, tmp_path):
    manifest = write_manifest(
        tmp_path / "m.csv",
        "image_path,seeds_path",
        f"{stored[0]['folder'] / 'ct'},{stored[0]['rtstruct']}",
    )
    run = batch(manifest)
    assert [row["state"] for row in run.rows("lesion")] == ["done"] * 3


def test_a_server_that_fails_costs_its_items(batch, stored, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "wait_after", lambda self, error, n: (_ for _ in ()).throw(error))
    rows = ["http://127.0.0.1:1/x/studies/1.2", "http://u:geheim@h/studies/1.2", stored[0]["study"]]
    rows += [f"{stored[0]['study']}/series/1.2.3", f"{stored[0]['study'][:-3]}"]
    manifest = write_manifest(tmp_path / "m.csv", "image_path", *rows)
    run = batch(manifest)
    found = {row["case_id"]: row["reason"] for row in run.rows("case")}
    assert sorted(found.values()) == [
        "", "web_address_invalid", "web_answer_invalid", "web_answer_invalid", "web_unavailable",
    ]  # fmt: skip
    assert run.result.exit_code == 2
    assert "geheim" not in (run.output / "cases.csv").read_text()
    again = batch(manifest, resume=True, retry_failed=True)
    assert again.n_computed == 4


def test_identity(tmp_path):
    def identity(*row):
        path = write_manifest(tmp_path / "m.csv", "image_path,seeds_path", ",".join(row))
        (item,) = manifest_items(path)
        return item.identity

    assert identity(URL, "") == identity(URL, "")
    assert len({identity(URL, ""), identity(f"{URL}.1", ""), identity(URL, URL)}) == 3


def read(url: str):
    return list(read_item(Item(0, "x", "", image_url=url), Settings(), False))


def test_who_we_are(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("geheim")
    monkeypatch.setenv("ONCOFM_WEB_TOKEN_FILE", str(token))
    with run_web_server("1.9.1") as one, run_web_server("1.9.1") as other:
        resource = f"/studies/{STUDY}/series/{SERIES}"
        (failed,) = read(one.url + resource)
        assert isinstance(failed, ItemFailed)
        assert "is set without ONCOFM_WEB_SERVER" in failed.message
        assert one.requests == []
        monkeypatch.setenv("ONCOFM_WEB_SERVER", one.url + "/")
        read(one.url + resource)
        read(other.url + resource)
        assert {headers.get("Authorization") for _, headers in one.requests} == {"Bearer geheim"}
        assert {headers.get("Authorization") for _, headers in other.requests} == {None}
    monkeypatch.setenv("ONCOFM_WEB_CA", str(tmp_path / "none.pem"))
    (failed,) = read(URL)
    assert failed.reason == WebRefusedError.code
    assert "no file of certificates" in failed.message


def test_nothing_is_left_of_what_failed_half_way(tmp_path):
    with run_web_server("1.9.1", "1.9.2") as web:
        path = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/1.9.2"
        web.wrong[path.rpartition("/instances")[0]] = [Reply(web.files["1.9.1"], "text/html")]
        (failed,) = read(f"{web.url}/studies/{STUDY}/series/{SERIES}")
    assert failed.reason == "web_answer_invalid"


def test_files_for_reports_are_kept_until_they_are_written(tmp_path, stored):
    manifest = write_manifest(tmp_path / "m.csv", "image_path", stored[0]["study"])
    (item,) = manifest_items(manifest, tmp_path / "fetched")
    left = item.folder / "images" / "left.part"
    left.parent.mkdir(parents=True)
    left.write_text("by a process that was killed")
    chunk, *_ = read_item(item, Settings(), True)
    assert chunk.case.volume.frames[0].instance.source.path.is_relative_to(item.folder)
    assert len(list(item.folder.rglob("*"))) == 16
    discard(item.folder)
    assert not (tmp_path / "fetched").exists()
    assert [type(one).__name__ for one in read_item(item, Settings(), False)][-1] == "ItemEnd"
    assert not (tmp_path / "fetched").exists()


def test_files_for_reports_that_cannot_be_kept(tmp_path):
    item = Item(0, "x", "", image_url=URL, folder=tmp_path / "elsewhere" / "fetched" / "0")
    (failed,) = read_item(item, Settings(), True)
    assert failed.reason == "web_refused"
    assert "Reports and key images of item x need its files" in failed.message
    assert not (tmp_path / "elsewhere").exists()

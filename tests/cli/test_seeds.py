"""``oncofm seeds``: the table it writes is a seed table, the pictures are where it says."""

import pandas as pd
import pytest
from PIL import Image
from studies import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("seeds") / "study", "seeds", seed=6)


def test_a_table_that_can_be_used_as_one(study, cli, tmp_path):
    table, pictures = tmp_path / "seeds.csv", tmp_path / "pictures"
    listed = cli("seeds", study.folder, "--overlay", pictures, "-o", table)
    assert listed.code == 0
    assert "3 of 3 lesions found in 1 cases" in listed.stderr
    rows = pd.read_csv(table)
    assert list(rows["label"]) == [lesion.label for lesion in study.scene.lesions]
    assert list(rows["state"]) == ["found"] * 3
    for path in rows["overlay"]:
        assert Image.open(path).size[0] > 1000
    direct = cli("run", study.folder, tmp_path / "direct").features
    by_table = cli("run", study.folder, "--seeds", table, tmp_path / "by_table").features
    for features in (direct, by_table):
        assert len(features) == 3
    pd.testing.assert_frame_equal(direct.filter(like="pred_"), by_table.filter(like="pred_"))
    assert cli("features", table, "-o", tmp_path / "features.csv").code == 0
    names = list(pd.read_csv(tmp_path / "features.csv"))
    assert len(names) == len(set(names))
    assert {"input_state", "state", "input_warnings"} <= set(names)


def test_a_lesion_outside_its_volume_is_no_find(study, cli, tmp_path):
    seeds = tmp_path / "wanted.csv"
    seeds.write_text("lesion_id,coordX,coordY,coordZ\nfar,5000,0,0\nbad,x,0,0\n")
    table = tmp_path / "seeds.csv"
    listed = cli("seeds", study.folder, "--seeds", seeds, "--overlay", tmp_path / "p", "-o", table)
    assert listed.code == 3
    rows = pd.read_csv(table)
    assert list(rows["reason"]) == ["seed_outside_volume", "seed_invalid"]
    assert list((tmp_path / "p").iterdir()) == []


def test_a_slice_that_cannot_be_shown_leaves_out_the_picture_only(study, cli, tmp_path):
    import shutil

    shutil.copytree(study.folder, tmp_path / "in")
    for path in sorted((tmp_path / "in" / "ct").iterdir()):
        path.write_bytes(path.read_bytes()[:-2000])
    table = tmp_path / "seeds.parquet"
    listed = cli("seeds", tmp_path / "in", "--overlay", tmp_path / "p", "-o", table)
    assert listed.code == 0
    rows = pd.read_parquet(table)
    assert rows["overlay"].isna().all()
    assert rows["warnings"].str.contains("no_overlay").all()
    assert list((tmp_path / "p").iterdir()) == []


def test_a_table_of_an_unknown_kind(study, cli, tmp_path):
    listed = cli("seeds", study.folder, "-o", tmp_path / "seeds.xlsx")
    assert listed.code == 1
    assert ".parquet, .csv" in listed.stderr

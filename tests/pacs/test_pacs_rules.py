"""Rules, and the answer of `oncofm pacs test-rules`."""

import pydicom
import pytest
import yaml
from nodes import config_text, pacs
from pydicom.uid import MRImageStorage
from typer.testing import CliRunner

from oncofm.cli.pacs import app
from oncofm.errors import InputNotFoundError
from oncofm.pacs.config import Match, Rule
from oncofm.pacs.rules import StudyFacts, choose_rule, misfits

FACTS = StudyFacts(
    called=frozenset({"ONCOFM"}),
    calling=frozenset({"CT1", "WORKSTATION"}),
    modality=frozenset({"CT", "SEG"}),
    body_part=frozenset({"CHEST"}),
    study_description=frozenset({"Thorax native"}),
    series_description=frozenset({"1.0 soft", "lesions"}),
    labels=frozenset({"Lung tumor", "lymph node"}),
)


@pytest.mark.parametrize(
    ("match", "wrong"),
    [
        ({}, []),
        ({"modality": ("ct",), "body_part": ("chest", "lung")}, []),
        ({"study_description": ("*thorax*",)}, []),
        ({"labels": ("lung*",)}, []),
        ({"labels": ("liver*",)}, ["labels"]),
        ({"calling": ("ct1",)}, ["calling"]),
        ({"calling": ("CT1",), "modality": ("MR",)}, ["modality"]),
        ({"body_part": ("ABDOMEN",), "series_description": ("bone",)},
         ["body_part", "series_description"]),
    ],
)  # fmt: skip
def test_misfits(match, wrong):
    assert misfits(Match(**match), FACTS) == wrong


def test_first_rule_that_fits():
    rules = [
        Rule(name="liver", match=Match(labels=("liver*",)), destinations=()),
        Rule(name="lung", match=Match(labels=("lung*",)), destinations=()),
        Rule(name="rest", destinations=()),
    ]
    chosen = choose_rule(rules, FACTS)
    assert chosen is not None
    assert chosen.name == "lung"
    assert choose_rule(rules[:1], FACTS) is None


@pytest.fixture
def config_file(tmp_path):
    rules = [
        {"name": "liver", "match": {"labels": ["liver*"]}, "destinations": ["PACS"]},
        {"name": "rest", "match": {"calling": ["STORESCU"]}, "destinations": ["PACS"]},
    ]
    path = tmp_path / "pacs.yml"
    path.write_text(yaml.safe_dump(config_text(tmp_path, {"PACS": pacs(4242)}, rules=rules)))
    return path


def test_command(config_file, study):
    arguments = ["test-rules", str(study.folder), "--config", str(config_file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 or done.return_value == 0
    assert "rule liver does not fit: labels" in done.output
    assert "rule rest: reports go to PACS" in done.output
    assert "it waits" not in done.output
    done = CliRunner().invoke(app, [*arguments, "--calling", "OTHER"])
    assert "no rule fits; nothing is done" in done.output


def test_command_says_what_is_missing(config_file, study, tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(study.ct_files[0].read_bytes())
    arguments = ["test-rules", str(folder), "--config", str(config_file)]
    done = CliRunner().invoke(app, arguments)
    assert "rule liver: reports go to PACS" in done.output  # a label may still come
    assert "it waits: no SEG or RTSTRUCT has come" in done.output


def test_command_says_what_is_not_taken(config_file, study, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    mr = pydicom.dcmread(study.ct_files[0])
    mr.SOPClassUID, mr.Modality = MRImageStorage, "MR"
    mr.save_as(folder / "mr.dcm")
    arguments = ["test-rules", str(folder), "--config", str(config_file)]
    done = CliRunner().invoke(app, arguments)
    assert ": 0 objects, and 1 that the node does not take\n  nothing is done" in done.output
    (folder / "ct.dcm").write_bytes(study.ct_files[1].read_bytes())
    done = CliRunner().invoke(app, arguments)
    assert ": 1 objects, and 1 that the node does not take\n" in done.output


def test_command_without_dicom(config_file, tmp_path):
    for name in (".", "pacs.yml", "none"):
        arguments = ["test-rules", str(tmp_path / name), "--config", str(config_file)]
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, InputNotFoundError)

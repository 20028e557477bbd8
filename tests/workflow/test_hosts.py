"""Hosts that start the image: what they say in the environment, and what they find afterwards."""

import json
import os
import shutil
from pathlib import Path

import pydicom
import pytest
import yaml
from fakes import VoxelEncoder
from studies import GRID, write_study

from oncofm.cli import container
from oncofm.demo.dicom import ct_geometry
from oncofm.demo.segmentation import lesion_segments, write_seg
from oncofm.errors import SettingInvalidError
from oncofm.workflow import job
from oncofm.workflow.hosts.mercure import read_task
from oncofm.workflow.hosts.monai import read_configuration
from oncofm.workflow.hosts.settings import HOST_SETTINGS, host_settings

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "utils" / "image" / "holoscan"


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("hosts"), "hosts").folder


@pytest.fixture(scope="module")
def mercure_folder(study_folder, tmp_path_factory):
    """A study as mercure lays it out: flat, and named by series and instance."""
    folder = tmp_path_factory.mktemp("mercure")
    for path in study_folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        name = f"{dataset.SeriesInstanceUID}#{dataset.SOPInstanceUID}"
        shutil.copy(path, folder / f"{name}.dcm")
        (folder / f"{name}.tags").write_text('{"Modality": "CT"}')
    write_task(folder, {})
    return folder


def write_task(folder: Path, settings: object) -> None:
    """Write the parts of mercure's task file that a module sees."""
    process = {"module_name": "oncofm", "module_config": {}, "settings": settings}
    task = {"id": "1f0", "info": {"uid": "1.2", "mrn": "CANARY"}, "process": process}
    (folder / "task.json").write_text(json.dumps(task))


@pytest.fixture
def start(monkeypatch, capsys):
    """Start the image's entry point with variables and arguments; gives exit code and stderr."""
    for name in os.environ:
        if name.startswith(("MERCURE_", "MONAI_", "HOLOSCAN_")):
            monkeypatch.delenv(name)
    encoder = VoxelEncoder()
    monkeypatch.setattr(job, "start_loading", lambda *_: lambda: encoder)

    def run(variables: dict[str, object], *arguments: str) -> tuple[object, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr("sys.argv", ["oncofm.container", *arguments])
        with pytest.raises(SystemExit) as end:
            container.main()
        return end.value.code, capsys.readouterr().err

    return run


def in_mercure(source: Path, target: Path) -> dict[str, object]:
    """Variables that mercure sets: its own, and those of the other modules that it can start."""
    names = {
        "MERCURE_{}_DIR": ("IN", "OUT"),
        "MONAI_{}PATH": ("INPUT", "OUTPUT"),
        "HOLOSCAN_{}_PATH": ("INPUT", "OUTPUT"),
    }
    return {
        name.format(word): folder
        for name, words in names.items()
        for word, folder in zip(words, (source, target), strict=True)
    }


def test_mercure_gets_what_it_can_send_on(start, mercure_folder, tmp_path):
    write_task(mercure_folder, {"key_images": True})
    before = {path: path.stat().st_mtime_ns for path in mercure_folder.iterdir()}
    code, said = start(in_mercure(mercure_folder, tmp_path))
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in mercure_folder.iterdir()} == before
    found = {path.name: pydicom.dcmread(path) for path in tmp_path.glob("*.dcm")}
    for name, dataset in found.items():
        assert name == f"{dataset.SeriesInstanceUID}#{dataset.SOPInstanceUID}.dcm"
    assert sorted(dataset.Modality for dataset in found.values()) == ["OT", "OT", "OT", "SR"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["files"]) == set(found)
    assert {path.name for path in tmp_path.iterdir()} == {*found, "result.json"}
    assert [lesion["state"] for lesion in result["lesions"]] == ["done"] * 3
    assert "__mercure_notification" not in result
    assert "CANARY" not in said + (tmp_path / "result.json").read_text()


def test_mercure_is_told_of_lesions_that_are_not_done(start, tmp_path):
    source = tmp_path / "in"
    study = write_study(source, "hosts/partial")
    geometry = ct_geometry(study.scene, **GRID)
    segments = lesion_segments(study.scene, geometry)
    segments[1].mask[:] = 0
    write_seg(study.seg_file, study.ct_files, segments, uid_seed="seg", omit_empty_frames=False)
    # What is done is sent on: with any other code than 0 mercure would throw it away.
    code, said = start(in_mercure(source, tmp_path / "out"))
    assert code == 0, said
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [lesion["reason"] for lesion in result["lesions"]] == ["", "segment_empty", ""]
    text = result["__mercure_notification"]["text"]
    assert text == "oncofm: 1 of 3 lesions could not be computed."
    assert len(result["files"]) == 1


def test_without_a_lesion_mercure_sees_a_failure(start, mercure_folder, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for path in mercure_folder.glob("*.dcm"):
        if pydicom.dcmread(path, stop_before_pixels=True).Modality == "CT":
            os.link(path, source / path.name)
    code, said = start(in_mercure(source, tmp_path / "out"))
    assert code == 3, said
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["files"] == []
    assert "no lesion" in result["__mercure_notification"]["text"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no section `process`"),
        ('{"process": []}', "no section `process`"),
        ('{"process": {"settings": 7}}', "names with values"),
        ('{"process": {"settings": {"nonsense": 1}}}', "unknown setting 'nonsense'"),
        ('{"process": {"settings": {"weights": "/etc/passwd"}}}', "unknown setting 'weights'"),
        ('{"process": {"settings": {"labels": 7}}}', "give labels a wrong value"),
        ('{"process": {"settings": {"profile": "x"}}}', "give profile a wrong value"),
        ('{"process": {"settings": {"jitter": 4}}}', "name a head"),
        ('{"process": {"settings": {"min_volume_mm3": NaN}}}', "must not be negative"),
        ('{"process": {"settings": {"sr": "none"}}}', "no reports"),
        (" " * 1_000_001, "larger than 1 MB"),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_task_file_that_is_none(start, text, words, tmp_path):
    (tmp_path / "task.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, said = start(in_mercure(tmp_path, tmp_path / "out"))
    assert code == 1
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_task_file_that_is_a_folder(tmp_path):
    with pytest.raises(SettingInvalidError, match="cannot be read"):
        read_task(tmp_path)


def test_without_a_task_file_the_defaults_count(tmp_path):
    assert read_task(tmp_path / "task.json") == host_settings(None, "")
    assert read_configuration(tmp_path / "app.yaml").sr == "auto"


def test_mercure_must_name_folders_that_exist(start, tmp_path):
    code, said = start({"MERCURE_IN_DIR": tmp_path})
    assert code == 1
    assert "MERCURE_OUT_DIR is not set" in said
    code, said = start(in_mercure(tmp_path / "absent", tmp_path / "out"))
    assert code == 1
    assert "is no folder" in said


@pytest.mark.parametrize(
    "names",
    [("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"), ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH")],
)
def test_an_application_package_runs_on_what_its_host_names(start, names, study_folder, tmp_path):
    (tmp_path / "settings.yaml").write_text("per: component\nsr: point\n")
    variables = {
        "HOLOSCAN_WORKDIR": tmp_path,
        names[0]: study_folder,
        names[1]: "out/",
        "HOLOSCAN_CONFIG_PATH": "settings.yaml",
    }
    code, said = start(variables)
    assert code == 0, said
    assert (tmp_path / "out" / "features.parquet").is_file()
    assert [path.name.endswith("-point.dcm") for path in (tmp_path / "out/sr").iterdir()] == [True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML"),
        ("[" * 1_000, "is no YAML"),
        ("- 1", "names with values"),
        ("1: 2", "unknown setting '1'"),
        ("heads: {a: b}", "give heads a wrong value"),
    ],
)
def test_a_configuration_that_is_none(text, words, tmp_path):
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(SettingInvalidError, match=words):
        read_configuration(tmp_path / "app.yaml")


def test_an_application_package_without_input(start, tmp_path):
    code, said = start({"HOLOSCAN_INPUT_PATH": tmp_path / "absent"})
    assert code == 1
    assert "is not there; mount it" in said


def test_a_word_is_a_command_and_an_option_is_mhubs(start, tmp_path):
    # Also where a host has set its variables.
    variables = in_mercure(tmp_path, tmp_path)
    assert start(variables, "weights", "verify", str(tmp_path / "absent"))[0] == 1
    code, said = start(variables, "--workflow", "nonsense")
    assert code == 1
    assert said.startswith("mhub.run: ")


def test_without_a_host_mhubs_default_workflow_runs(start, monkeypatch):
    given = []
    monkeypatch.setattr("oncofm.cli.mhub_run.run", lambda arguments: given.append(arguments) or 0)
    assert start({}) == (0, "")
    assert given == [["--workflow", "default"]]


def test_the_manifests_are_of_this_version():
    import oncofm

    for name in ("app.json", "pkg.json"):
        assert json.loads((MANIFESTS / name).read_text())["version"] == oncofm.__version__
    assert host_settings(yaml.safe_load((MANIFESTS / "app.yaml").read_text()), "")


def test_settings_of_hosts_are_those_of_rules():
    from oncofm.pacs.config import RuleSettings

    assert set(HOST_SETTINGS) == set(RuleSettings.model_fields)

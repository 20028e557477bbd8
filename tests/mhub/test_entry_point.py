"""``mhub.run`` is strict: what is wrong is said in one sentence, and is in the exit code."""

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from oncofm.demo.samples import write_sample
from oncofm.resources import resource_dir

MHUB_RUN = Path(sys.executable).with_name("mhub.run")
STEPS = ["StructureImporter", "SeedExtractor", "FeatureExtractor", "ResultExporter", "CaseSummary"]


@pytest.fixture
def source(tmp_path):
    """The smallest sample, in a folder that a test may change."""
    write_sample("from_centroids", tmp_path / "input_data")
    return tmp_path / "input_data"


# --- what to run ---------------------------------------------------------------------------


def test_without_a_workflow_it_says_which_there_are(mhub_run):
    result = mhub_run()
    assert result.code == 1
    assert "mhub.run: Choose a workflow with --workflow:" in result.stderr
    for path in resource_dir("config").glob("*.yml"):
        assert f"fmcib.{path.stem}: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-w", "defalt"], "Model fmcib has no workflow 'defalt'; choose one of biomarkers, d"),
        (["-w", "../default"], "Model fmcib has no workflow '../default'; choose one of"),
        (["-w", "default", "--model", "lungs"], "There is no model 'lungs'; choose one with"),
        (["-w", "default", "-c", "x.yml"], "Give either --workflow or --config, not both."),
        (["-w", "default", "--nonsense"], "unrecognized arguments: --nonsense; see mhub.run"),
        (["-w", "default", "input"], "unrecognized arguments: input; see"),
        (["-w"], "argument -w/--workflow: expected one argument; see"),
        (["--work", "default"], "unrecognized arguments: --work default; see"),
    ],
)
def test_unknown_arguments_and_names(arguments, sentence, mhub_run):
    assert mhub_run(*arguments).complaint().startswith(sentence)


def test_upstreams_model_name_is_understood(source, encoder, mhub_run):
    result = mhub_run("-w", "from_centroids", "--model", "fmcib_radiomics", source=source)
    assert result.code == 0


def test_several_models_need_a_choice(model, mhub_run):
    from mhub_helpers import install_model

    install_model(model.parent, "other")
    complaint = mhub_run("-w", "default").complaint()
    assert complaint == "Several models are installed; choose one with --model: fmcib, other."
    assert "has no workflow 'x'" in mhub_run("--model", "other", "-w", "x").complaint()


# --- overrides -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("modules.SeedExtractor=3", "'modules.SeedExtractor=3' is no override; write modules."),
        ("modules.SeedExtractor.per", "'modules.SeedExtractor.per' is no override; write"),
        ("SeedExtractor.per=segment", "'SeedExtractor.per=segment' is no override; write"),
        ("modules..per=segment", "'modules..per=segment' is no override; write"),
        ("", "'' is no override; write"),
        ("modules.Seeds.per=x", "The workflow has no module 'Seeds'; there are DicomCTImporter,"),
        (
            "modules.SeedExtractor.pre=x",
            "Module SeedExtractor has no key 'pre'; there are kinds, labels, per, ",
        ),
        ("general.base=x", "The workflow has no general.base; there are general.data_base_dir,"),
        (
            "modules.FeatureExtractor.batch_size=many",
            "modules.FeatureExtractor.batch_size is 'many'; it must be of type int.",
        ),
        (
            "modules.FeatureExtractor.batch_size=2.5",
            "modules.FeatureExtractor.batch_size is 2.5; it must be of type int.",
        ),
        (
            "modules.FeatureExtractor.batch_size=True",
            "modules.FeatureExtractor.batch_size is True; it must be of type int.",
        ),
        (
            "modules.SeedExtractor.threshold=[0.5]",
            "modules.SeedExtractor.threshold is [0.5]; it must be of type float.",
        ),
        ("modules.SeedExtractor.kinds=[seg", "modules.SeedExtractor.kinds is '[seg'; it must be"),
        ("modules.SeedExtractor.kinds=dose", "The seed kind 'dose' is none of seg, rtstruct,"),
        ("modules.SeedExtractor.per=lesion", "The per 'lesion' is none of segment, component."),
        ("modules.SeedExtractor.threshold=NaN", "The threshold is nan; it must be above 0"),
        ("modules.SeedExtractor.min_volume_mm3=-1", "The smallest volume is -1.0 mm3; it must not"),
        ("modules.FeatureExtractor.profile=fast", "The profile 'fast' is none of mhub, paper."),
        ("modules.FeatureExtractor.batch_size=-4", "The batch size is -4; it must be positive."),
    ],
)
def test_wrong_overrides(override, sentence, encoder, mhub_run, tmp_path):
    """Found before any work: there is no input, and nobody says so."""
    result = mhub_run("-w", "default", f"--config:{override}", source=tmp_path / "absent")
    assert result.complaint().startswith(sentence)


def test_values_are_read_by_the_type_of_their_key(encoder, source, mhub_run):
    result = mhub_run(
        "-w",
        "from_centroids",
        "--config:modules#SeedExtractor#labels=lung*, chest*",
        "--config:modules.SeedExtractor.kinds=[]",
        "--config:modules.FeatureExtractor.batch_size=2",
        "--config:modules.SeedExtractor.threshold=1",
        "--config:modules.SeedExtractor.per=component",
        "--config:modules.SeedExtractor.per=segment",
        source=source,
    )
    assert result.code == 0
    configuration = result.manifest["configuration"]
    assert configuration["labels"] == ["lung*", "chest*"]
    assert configuration["seed_kinds"] == []
    assert configuration["per"] == "segment"


# --- workflow files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read ([Errno 2] No such file"),
        ("general: [", "is no YAML: "),
        ("\x00", "is no YAML: "),
        ("just a text", "has no sections; see the ones in config/."),
        ("", "has no sections; see"),
        ("general: {}", "has no list of modules under execute."),
        ("general: {}\nexecute: {a: b}", "has no list of modules under execute."),
        ("general: {data_base_dir: 3}\nexecute: [A]", "is no path."),
        ("general: 3\nexecute: [A]", "is no mapping."),
        ("execute: [A]\nmodules: [A]", "is no mapping."),
        ("execute: [A]\nmodules: {A: 3}", "is no mapping."),
        ("execute: [3]", "names no module: 3."),
        ("execute: [SeedExtractor]", "would write no results; add ResultExporter to execute."),
    ],
)
def test_workflow_files_that_are_none(text, sentence, mhub_run, tmp_path):
    path = tmp_path / "mine.yml"
    if text is not None:
        path.write_text(text)
    complaint = mhub_run("--config", path).complaint()
    assert str(path) in complaint
    assert sentence in complaint


def test_a_binary_workflow_file(mhub_run, tmp_path):
    path = tmp_path / "mine.yml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "cannot be read" in mhub_run("--config", path).complaint()


@pytest.mark.parametrize(
    ("steps", "modules", "sentence"),
    [
        (["Nonsense", *STEPS], {}, "names a module 'Nonsense', which does not exist; there are "),
        (
            ["StructureImporter", "FeatureExtractor", "SeedExtractor", "ResultExporter"],
            {},
            "The seeds were not read; put SeedExtractor earlier.",
        ),
        (
            ["StructureImporter", "SeedExtractor", "ResultExporter", "FeatureExtractor"],
            {},
            "No features were computed; put FeatureExtractor before ResultExporter.",
        ),
        (
            ["StructureImporter", "SeedExtractor", "CaseSummary", "ResultExporter"],
            {},
            "CaseSummary needs ResultExporter before it in the workflow.",
        ),
        (STEPS, {"SeedExtractor": {"pre": "x"}}, "Module SeedExtractor has no key 'pre'; there"),
        (STEPS, {"SeedExtractor": {"per": 3}}, "modules.SeedExtractor.per is 3; it must be of"),
        (STEPS, {"StructureImporter": {"structures": ["$id/["]}}, "$id/["),
    ],
)
def test_workflows_that_cannot_work(
    steps, modules, sentence, encoder, mhub_run, workflow_file, source, tmp_path
):
    importer = {"structures": ["$id@instance", "$id/CT.nrrd@nrrd:mod=ct"], "import_id": "id"}
    modules = {"StructureImporter": importer} | modules
    path = workflow_file(steps, base=tmp_path, **modules)
    assert sentence in mhub_run("--config", path).complaint()


def test_seeds_before_an_importer(encoder, mhub_run, workflow_file):
    path = workflow_file(STEPS[1:])
    result = mhub_run("--config", path)
    assert result.code == 3
    assert "holds no CT volume" in result.stderr


def test_a_step_with_its_own_keys(encoder, mhub_run, workflow_file, source, tmp_path):
    content = yaml.safe_load((resource_dir("config") / "from_centroids.yml").read_text())
    steps = [
        {"module": step, "labels": ["lung*"]} if step == "SeedExtractor" else step
        for step in content["execute"]
    ]
    path = workflow_file(steps, base=tmp_path, **content["modules"])
    place = f"--config:modules.StructureImporter.source_dir={source}"
    result = mhub_run("--config", path, place, output=tmp_path / "output_data")
    assert result.code == 0
    assert len(result.rows("lesion")) == 1
    steps[1] = {"module": "SeedExtractor", "label": []}
    complaint = mhub_run("--config", workflow_file(steps)).complaint()
    assert complaint.startswith("Module SeedExtractor has no key 'label'")


# --- standard input ------------------------------------------------------------------------


def test_a_workflow_from_standard_input(encoder, mhub_run, source, monkeypatch):
    text = (resource_dir("config") / "from_centroids.yml").read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    result = mhub_run("--config", "-", source=source, importer="StructureImporter")
    assert result.code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("general: ["))
    assert "Workflow file (standard input) is no YAML" in mhub_run("-c", "-").complaint()


def test_standard_input_is_left_alone(encoder, mhub_run, source, monkeypatch):
    class Untouchable(io.StringIO):
        def read(self, *_):
            raise AssertionError("standard input was read")

        readline = readlines = __iter__ = __next__ = read

    monkeypatch.setattr("sys.stdin", Untouchable())
    assert mhub_run("-w", "from_centroids", source=source).code == 0
    assert mhub_run().code == 1


def test_an_open_pipe_does_not_make_it_wait(tmp_path):
    with subprocess.Popen(
        [MHUB_RUN, "-w", "default", f"--config:general.data_base_dir={tmp_path}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"ONCOFM_HOME": "/nonexistent", "ONCOFM_WEIGHTS": ""},
    ) as process:
        assert process.wait(600) == 1
        assert "The weights of fmcib are neither in" in process.stderr.read()


# --- before any work -----------------------------------------------------------------------


@pytest.fixture
def no_import(monkeypatch):
    """Nothing may look at the input."""
    from oncofm.workflow import survey

    def never(*_):
        raise AssertionError("a module ran")

    monkeypatch.setattr(survey, "scan_dicom", never)
    monkeypatch.setattr(survey, "match_structure", never)


def test_missing_weights(no_import, mhub_run, source, monkeypatch):
    monkeypatch.setenv("ONCOFM_HOME", "/nonexistent")
    monkeypatch.delenv("ONCOFM_WEIGHTS", raising=False)
    complaint = mhub_run("-w", "default", source=source).complaint()
    assert complaint.startswith("The weights of fmcib are neither in /nonexistent/fmcib nor in")
    place = "--config:modules.FeatureExtractor.weights=/absent.torch"
    complaint = mhub_run("-w", "default", place, source=source).complaint()
    assert complaint.startswith("/absent.torch (--weights) is not a file;")


def test_unwritable_output(no_import, encoder, mhub_run, source, tmp_path):
    """A superuser may write into any folder, but not below a file and not in /proc."""
    (tmp_path / "file").write_text("")
    complaint = mhub_run("-w", "default", source=source, output=tmp_path / "file").complaint()
    assert complaint.startswith(f"Output folder {tmp_path / 'file'} cannot be written (File exists")
    complaint = mhub_run("-w", "default", source=source, output=Path("/proc/out")).complaint()
    assert complaint.startswith("Output folder /proc/out cannot be written (")


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may write where the mode forbids it")
def test_read_only_output(no_import, encoder, mhub_run, source, tmp_path):
    (tmp_path / "output").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert "cannot be written (Permission denied)" in mhub_run("-w", "default").complaint()


# --- exit codes ----------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", ["default", "from_centroids"])
def test_missing_and_empty_input(workflow, encoder, mhub_run, tmp_path):
    folder = tmp_path / "input"
    complaint = mhub_run("-w", workflow, source=folder).complaint()
    assert complaint.startswith(f"{folder} does not exist; name a folder")
    folder.mkdir()
    result = mhub_run("-w", workflow, source=folder)
    assert result.code == 3
    assert result.stderr.startswith("The input holds no CT volume and nothing that marks lesions")
    assert result.cases == []
    assert result.manifest["summary"]["exit_code"] == 3


def test_no_case_done(encoder, mhub_run, source):
    next(source.glob("*/centroids.json")).unlink()
    result = mhub_run("-w", "from_centroids", source=source)
    assert result.code == 3
    assert result.stderr.endswith("0 of 1 cases done, 0 of 0 lesions\n")


def test_a_workflow_without_summary_has_the_same_exit_code(
    encoder, mhub_run, workflow_file, source, tmp_path
):
    content = yaml.safe_load((resource_dir("config") / "from_centroids.yml").read_text())
    next(source.glob("*/centroids.json")).unlink()
    path = workflow_file(STEPS[:-1], **content["modules"])
    result = mhub_run("-c", path, source=source, importer="StructureImporter")
    assert (result.code, result.stderr) == (3, "")


# --- what else it can do -------------------------------------------------------------------


def test_help_names_the_exit_codes(mhub_run):
    result = mhub_run("--help")
    assert result.code == 0
    assert "0 all done, 1 usage or set-up error, 2 some cases not done" in result.stdout


def test_print_shows_what_modules_log(encoder, mhub_run, source):
    result = mhub_run("-w", "from_centroids", "--print", source=source)
    assert result.code == 0
    assert "Start FeatureExtractor" in result.stderr
    assert result.stdout == ""


def test_progress_is_json_lines(encoder, mhub_run, source):
    result = mhub_run("-w", "from_centroids", "--stream-json-progress", source=source)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "case", "end"]
    assert events[0]["n_lesions"] == 3


def test_cleanup_empties_the_output_folder(encoder, mhub_run, source, tmp_path):
    output, outside = tmp_path / "output", tmp_path / "outside"
    (output / "old").mkdir(parents=True)
    (output / "old" / "features.csv").write_text("old")
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (output / "link").symlink_to(outside)
    result = mhub_run("-w", "from_centroids", "--cleanup", source=source)
    assert result.code == 0
    assert not (output / "old").exists()
    assert not (output / "link").is_symlink()
    assert (outside / "kept").exists()
    assert (output / "run.json").exists()


def test_cleanup_leaves_the_output_alone_if_the_run_cannot_start(mhub_run, source, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "old").write_text("old")
    place = "--config:modules.FeatureExtractor.weights=/absent.torch"
    mhub_run("-w", "from_centroids", "--cleanup", place, source=source).complaint()
    assert (tmp_path / "output" / "old").exists()


@pytest.mark.parametrize("place", ["input_data", "."])
def test_cleanup_never_deletes_the_input(place, encoder, mhub_run, source, tmp_path):
    output = (tmp_path / place).resolve()
    complaint = mhub_run("-w", "from_centroids", "--cleanup", source=source, output=output)
    assert complaint.complaint().startswith(f"Output folder {output} holds the input, so --cleanup")
    assert list(source.glob("*/CT.nrrd"))


def test_cleanup_through_a_link(encoder, mhub_run, source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    result = mhub_run("-w", "from_centroids", "--cleanup", source=source, output=tmp_path / "link")
    assert "holds the input" in result.complaint()


# --- defects -------------------------------------------------------------------------------


def test_a_defect_shows_no_traceback_without_debug(encoder, mhub_run, source, monkeypatch):
    from oncofm.workflow.mhub import context

    def fail(*_):
        raise ValueError("PATIENT^NAME")

    monkeypatch.setattr(context, "gather", fail)
    complaint = mhub_run("-w", "from_centroids", source=source).complaint()
    assert complaint == (
        "Module SeedExtractor failed (ValueError); run again with --debug to see where."
    )
    monkeypatch.setattr("oncofm.workflow.mhub.run.load_modules", fail)
    complaint = mhub_run("-w", "from_centroids", source=source).complaint()
    assert complaint.startswith("Failed unexpectedly (ValueError), which is a defect of the")


def test_debug_shows_it(tmp_path):
    code = (
        "import sys\n"
        "from oncofm.cli import mhub_run\n"
        "from oncofm.workflow.mhub import models\n"
        "models.find_models = lambda: 1 / 0\n"
        "mhub_run.main()\n"
    )
    command = [sys.executable, "-c", code, "-w", "default"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr

"""Modules of other origin between ours: what they make is used, and their failures are seen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import voxels_of
from mhub_helpers import true_patches

from oncofm.demo.samples import write_sample
from oncofm.workflow.mhub.instances import _ANNOTATION_TYPES, _VOLUME_TYPES

OURS = ["SeedExtractor", "FeatureExtractor", "ResultExporter", "CaseSummary"]

MASK_MAKER = '''
import SimpleITK as sitk
from mhubio.core import IO, Instance, InstanceData, Module


@IO.Config("point", list, [], the="where the lesion is, LPS mm")
class MaskMaker(Module):
    """Stands for a segmentation model: a box of 3 x 3 x 3 voxels at a point."""

    point: list

    @IO.Instance()
    @IO.Input("image", "dicom:mod=ct", the="CT series")
    @IO.Output("mask", "lesion.nii.gz", "nifti:mod=seg:model=MaskMaker", data="image", the="mask")
    def task(self, instance: Instance, image: InstanceData, mask: InstanceData) -> None:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(image.abspath))
        volume = reader.Execute()
        index = volume.TransformPhysicalPointToIndex([float(at) for at in self.point])
        labels = sitk.Image(volume.GetSize(), sitk.sitkUInt8)
        labels.CopyInformation(volume)
        for i in range(-1, 2):
            for j in range(-1, 2):
                for k in range(-1, 2):
                    labels[index[0] + i, index[1] + j, index[2] + k] = 1
        sitk.WriteImage(labels, mask.abspath)
        print("a module may print", flush=True)
'''

SEG_MAKER = """
import shutil

from mhubio.core import IO, Instance, InstanceData, Module


@IO.Config("copy_of", str, "", the="the SEG to write")
class SegMaker(Module):
    copy_of: str

    @IO.Instance()
    @IO.Output("seg", "lesions.seg.dcm", "dicomseg:mod=seg:model=SegMaker", the="segmentation")
    def task(self, instance: Instance, seg: InstanceData) -> None:
        shutil.copyfile(self.copy_of, seg.abspath)
"""

STUMBLER = """
from mhubio.core import IO, Instance, Module


@IO.Config("at", str, "", the="instance that it fails in")
class Stumbler(Module):
    at: str

    @IO.Instance()
    def task(self, instance: Instance) -> None:
        if instance.attr["id"] == self.at:
            raise ValueError("PATIENT^NAME")
"""

BREAKER = """
from mhubio.core import Module


class Breaker(Module):
    def task(self) -> None:
        raise ValueError("PATIENT^NAME")
"""

QUITTER = """
import sys

from mhubio.core import Module


class Quitter(Module):
    def task(self) -> None:
        sys.exit({code})
"""

WITNESS = """
import json
from pathlib import Path

from mhubio.core import Module


class Witness(Module):
    def task(self) -> None:
        seen = []
        for instance in self.config.data.instances:
            data = [[each.type.ftype.name, each.abspath, each.confirmed] for each in instance.data]
            seen.append([dict(instance.attr), data])
        for _, data in seen:
            for entry in data:
                if entry[1].endswith("seeds.json"):
                    entry.append(json.loads(Path(entry[1]).read_text()))
        Path(self.config.data.abspath, "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def add_module(model):
    """Put a module of other origin beside ours."""

    def add(name: str, code: str) -> None:
        (model / "utils" / f"{name}.py").write_text(code)

    return add


def nearest_voxel(ct_folder: Path, point) -> tuple[float, float, float]:
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(ct_folder)))
    volume = reader.Execute()
    return volume.TransformIndexToPhysicalPoint(volume.TransformPhysicalPointToIndex(point))


def test_a_mask_that_a_module_has_made_is_where_the_lesion_is(
    add_module, encoder, mhub_run, workflow_file, samples, scratch
):
    add_module("MaskMaker", MASK_MAKER)
    sample = samples["default"]
    point = sample.scene.lesions[1].centre_mm
    workflow = workflow_file(
        ["DicomCTImporter", "MaskMaker", *OURS],
        MaskMaker={"point": list(point)},
        SeedExtractor={"kinds": ["mask"]},
    )
    result = mhub_run("--config", workflow, source=sample.folder)
    assert result.code == 0, result.stderr
    position = nearest_voxel(sample.folder / "ct", point)
    expected = voxels_of(true_patches(sample, [position]))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)
    (lesion,) = result.rows("lesion")
    assert lesion["lesion_id"] == "label-1"
    assert list(scratch.iterdir()) == []


def test_without_a_choice_of_kinds_both_are_used(
    add_module, encoder, mhub_run, workflow_file, samples
):
    add_module("MaskMaker", MASK_MAKER)
    sample = samples["default"]
    point = sample.scene.lesions[1].centre_mm
    workflow = workflow_file(
        ["DicomCTImporter", "MaskMaker", *OURS], MaskMaker={"point": list(point)}
    )
    result = mhub_run("--config", workflow, source=sample.folder)
    assert result.code == 0, result.stderr
    lesions = [row["lesion_id"] for row in result.rows("lesion")]
    assert lesions == ["segment-1", "segment-2", "segment-3", "label-1"]


def test_a_seg_that_a_module_has_made_is_read(
    add_module, encoder, mhub_run, workflow_file, samples, tmp_path
):
    import shutil

    sample = samples["default"]
    shutil.copytree(sample.folder / "ct", tmp_path / "input" / "ct")
    add_module("SegMaker", SEG_MAKER)
    workflow = workflow_file(
        ["DicomCTImporter", "SegMaker", *OURS],
        SegMaker={"copy_of": str(sample.folder / "seg" / "lesions.dcm")},
        SeedExtractor={"kinds": ["seg"]},
    )
    result = mhub_run("--config", workflow, source=tmp_path / "input")
    assert result.code == 0, result.stderr
    expected = voxels_of(true_patches(sample))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "kind", [*_ANNOTATION_TYPES.values(), *(f"{t}:mod=ct" for t in _VOLUME_TYPES.values())]
)
def test_mhubio_knows_the_types_that_files_are_published_as(kind):
    from mhubio.core import DataType

    name, _, meta = kind.partition(":")
    parsed = DataType.fromString(kind)
    assert parsed.ftype.name.lower() == name
    assert dict(parsed.meta.items()) == dict([meta.split("=")])


def test_a_module_that_fails_in_one_instance_is_seen(
    add_module, encoder, mhub_run, workflow_file, tmp_path
):
    add_module("Stumbler", STUMBLER)
    folder = tmp_path / "input"
    cases = [write_sample("default", folder / str(n), seed=n).case_id for n in range(3)]
    workflow = workflow_file(["DicomCTImporter", "Stumbler", *OURS], Stumbler={"at": cases[1]})
    result = mhub_run("--config", workflow, source=folder)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "3 of 3 cases done, 9 of 9 lesions",
        f"failed: Module Stumbler failed in instance {cases[1]}; run again with --debug to see "
        "where.",
    ]
    assert [row["state"] for row in result.rows("case")] == ["done"] * 3


def test_a_module_that_fails_as_a_whole_stops_the_run(
    add_module, encoder, mhub_run, workflow_file, samples
):
    add_module("Breaker", BREAKER)
    workflow = workflow_file(["DicomCTImporter", "Breaker", *OURS])
    result = mhub_run("--config", workflow, source=samples["default"].folder)
    expected = "Module Breaker failed (ValueError); run again with --debug to see where."
    assert result.complaint() == expected
    assert not (result.output / "run.json").exists()


@pytest.mark.parametrize("code", [0, 1, 7, "'Enough.'"])
def test_a_module_that_ends_the_process_early(
    code, add_module, encoder, mhub_run, workflow_file, samples
):
    add_module("Quitter", QUITTER.format(code=code))
    workflow = workflow_file(["DicomCTImporter", "Quitter", *OURS])
    result = mhub_run("--config", workflow, source=samples["default"].folder)
    reason = " Enough." if isinstance(code, str) else ""
    assert result.complaint().endswith(f" ended before it had written results.{reason}")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import nonsense_that_nobody_has", "cannot be loaded (ModuleNotFoundError: No module"),
        ("class Breaker(", "cannot be loaded (SyntaxError: "),
        ("", "has no class Breaker."),
    ],
)
def test_module_files_that_cannot_be_loaded(code, sentence, add_module, mhub_run, workflow_file):
    add_module("Breaker", code)
    complaint = mhub_run("-c", workflow_file(["Breaker", *OURS])).complaint()
    assert sentence in complaint
    assert "Breaker.py" in complaint


def test_a_module_of_mhubio_that_needs_what_is_not_there(mhub_run, workflow_file):
    try:
        import pyplastimatch  # noqa: F401
    except ImportError:
        complaint = mhub_run("-c", workflow_file(["NiftiConverter", *OURS])).complaint()
        assert complaint.startswith("Module mhubio.modules.convert.NiftiConverter of mhubio")
        assert "install what it needs." in complaint


def test_what_other_modules_see(add_module, encoder, mhub_run, workflow_file, samples, tmp_path):
    import json

    add_module("Witness", WITNESS)
    sample = samples["default"]
    (tmp_path / "data").mkdir()
    workflow = workflow_file(["DicomCTImporter", *OURS[:-1], "Witness", "CaseSummary"])
    result = mhub_run("--config", workflow, source=sample.folder)
    assert result.code == 0, result.stderr
    ((attributes, data),) = json.loads((tmp_path / "data" / "seen.json").read_text())
    assert attributes == {"id": sample.case_id, "sid": sample.case_id}
    files = {kind.lower(): (path, confirmed, *rest) for kind, path, confirmed, *rest in data}
    assert all(entry[1] for entry in files.values())
    assert set(files) == {"dicom", "dicomseg", "json", "csv"}
    assert files["dicom"][0] == str(sample.folder / "ct")
    assert files["dicomseg"][0] == str(sample.folder / "seg" / "lesions.dcm")
    features = result.output / sample.case_id / "features.csv"
    assert files["csv"][0] == str(features)
    points = files["json"][2]
    assert [point["Mhub ROI"] for point in points] == [le.label for le in sample.scene.lesions]
    for point, lesion in zip(points, sample.scene.lesions, strict=True):
        at = (point["coordX"], point["coordY"], point["coordZ"])
        np.testing.assert_allclose(at, lesion.centre_mm, atol=2.0)


def test_instances_of_mhubios_own_importer(encoder, mhub_run, workflow_file, tmp_path):
    sample = write_sample("from_centroids", tmp_path / "data" / "input_data")
    workflow = workflow_file(
        ["FileStructureImporter", *OURS],
        base=tmp_path / "data",
        FileStructureImporter={
            "structures": [
                "$patientID@instance",
                "$patientID/CT.nrrd@nrrd:mod=ct",
                "$patientID/centroids.json@json:type=fmcibcoordinates",
            ],
            "import_id": "patientID",
        },
    )
    result = mhub_run("--config", workflow, output=tmp_path / "data" / "output_data")
    assert result.code == 0, result.stderr
    expected = voxels_of(true_patches(sample))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)
    assert [row["case_id"] for row in result.rows("case")] == [sample.case_id]


def test_the_context_is_not_needed_to_import_a_module_file():
    """MHub's tools read module files without running them."""
    from oncofm.resources import resource_dir

    path = resource_dir("mhub") / "SeedExtractor.py"
    code = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('m', {str(path)!r})\n"
        "m = u.module_from_spec(spec); spec.loader.exec_module(m)\n"
        "print(sorted({'torch', 'monai'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Reports in a PACS: sent by C-STORE and STOW-RS, fetched by REST and WADO-RS, and unchanged."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from orthanc import Orthanc, run_orthanc
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from reports import ODD, PROVENANCE, UMLAUTS, describe_lesions, make_odd, many
from studies import Study, edit_file, write_study

from oncofm.results.sr import write_sr
from oncofm.results.sr_features import write_features_sr

pytestmark = pytest.mark.slow

STYLES = ("segment", "point")
FEATURES = np.random.default_rng(0).normal(size=512).astype(np.float32)
PATIENT = "Müßig-Ångström^Jürgen"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = write_study(tmp_path_factory.mktemp("orthanc") / "in", "orthanc")

    def rename(dataset):
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = PATIENT

    for file in (*study.ct_files, study.seg_file):
        edit_file(file, rename)
    return study


@pytest.fixture(scope="module")
def reports(study, tmp_path_factory) -> dict[str, Path]:
    """Every kind of report, by its name."""
    folder = tmp_path_factory.mktemp("sr")
    cts = [pydicom.dcmread(file, stop_before_pixels=True) for file in study.ct_files]
    lesions = describe_lesions(study, pydicom.dcmread(study.seg_file, stop_before_pixels=True))
    comma = [replace(lesion, label=f"Läsion {UMLAUTS}"[:70]) for lesion in lesions]
    kinds = {
        "one": lesions[:1],
        "forty": many(lesions, 40),
        "comma": comma,
        **{case: make_odd(lesions, case) for case in ODD},
    }
    paths = {}
    for style in STYLES:
        for kind, some in kinds.items():
            path = paths[f"{kind} {style}"] = folder / f"{kind}-{style}.dcm"
            write_sr(path, cts, some, PROVENANCE, style=style)
        path = paths[f"features {style}"] = folder / f"features-{style}.dcm"
        write_features_sr(
            path, cts, lesions[0], FEATURES, PROVENANCE, style=style, number=STYLES.index(style) + 1
        )
    return paths


@pytest.fixture(scope="module", params=["C-STORE", "STOW-RS"])
def pacs(request, study, reports, tmp_path_factory):
    """A PACS that was sent everything, twice."""
    with run_orthanc(tmp_path_factory.mktemp("pacs")) as orthanc:
        send = orthanc.store if request.param == "C-STORE" else orthanc.stow
        for _ in range(2):
            send([*study.ct_files, study.seg_file, *reports.values()])
        yield orthanc


def fetched(pacs: Orthanc, sent: Dataset, way: str) -> Dataset:
    uids = sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID
    data = pacs.file(uids[-1]) if way == "REST" else pacs.wado(*uids)
    return pydicom.dcmread(io.BytesIO(data))


def test_what_is_sent_twice_is_there_once(pacs, study, reports):
    assert len(pacs.instances) == len(study.ct_files) + 1 + len(reports)


@pytest.mark.parametrize("way", ["REST", "WADO-RS"])
def test_reports_come_back_as_they_were(pacs, reports, way):
    for name, path in reports.items():
        sent = pydicom.dcmread(path)
        found = fetched(pacs, sent, way)
        assert list(found.keys()) == list(sent.keys()), name
        for element in sent:
            assert found[element.tag] == element, f"{name}: {element.keyword}"
        assert str(found.PatientName) == PATIENT
        if name.startswith("features"):
            assert found.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian


def test_images_and_seg_come_back_as_they_were(pacs, study):
    for path in (*study.ct_files[:2], study.seg_file):
        sent = pydicom.dcmread(path)
        assert fetched(pacs, sent, "REST") == sent


def test_a_report_lies_in_the_study_of_its_images(pacs, study, reports):
    (uid,) = {
        pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID
        for path in (study.ct_files[0], study.seg_file, *reports.values())
    }
    _, answer = pacs.get("/dicom-web/studies", "application/dicom+json")
    (found,) = json.loads(answer)
    assert found["0020000D"]["Value"] == [uid]

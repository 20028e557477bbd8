"""Seeds from structured reports, against highdicom's accessors, SimpleITK and closed formulas."""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from masks import OBLIQUE
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ExtensibleSRStorage,
    ImplicitVRLittleEndian,
    XRayRadiationDoseSRStorage,
)
from scipy.spatial.transform import Rotation
from tools import require_tool

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.phantom import chest_scene, lesion_mask
from oncofm.demo.report import group_names, outlines_mm, write_report, write_sr
from oncofm.demo.segmentation import lesion_segments, write_seg
from oncofm.errors import (
    ContourUnsupportedError,
    ReportInvalidError,
    SegmentationInvalidError,
    SegmentEmptyError,
    SeriesAbsentError,
)
from oncofm.imaging.sources import FileSource
from oncofm.seeds.dicom_seg import read_seg
from oncofm.seeds.dicom_sr import ImagePlane, read_sr
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.seeds.sr_regions import Graphic, find_place

GRID = {"shape": (72, 66, 30), "spacing_mm": (4.25, 4.5, 6.0)}
STYLES = ("point", "ellipsoid", "polygon", "segment")


@dataclass(frozen=True)
class CountingSource:
    """A file that remembers how often it was opened."""

    path: Path
    opened: list

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self):
        self.opened.append(self.path)
        return self.path.open("rb")


@cache
def header(file: Path) -> Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True)


@dataclass(frozen=True)
class Study:
    folder: Path
    lesions: tuple
    files: list[Path]
    seg_file: Path

    @property
    def cts(self) -> list[Dataset]:
        return [header(file) for file in self.files]

    @property
    def seg(self) -> Dataset:
        return header(self.seg_file)

    @property
    def planes(self) -> dict[str, ImagePlane]:
        return {ct.SOPInstanceUID: plane_of(ct) for ct in self.cts}

    def sr(self, style, **options) -> Path:
        path = self.folder / f"{style}.dcm"
        return write_sr(
            path, self.files, self.lesions, style=style, seg_file=self.seg_file, **options
        )

    def report(self, *groups, edit=None) -> Path:
        evidence = [*self.cts, self.seg]
        return write_report(self.folder / "report.dcm", evidence, groups, edit=edit)

    def read(self, path, **options):
        given = {
            "segmentations": {self.seg.SOPInstanceUID: FileSource(self.seg_file)},
            "images": self.planes,
        }
        return read_sr(FileSource(path), **(given | options))


def plane_of(ct: Dataset) -> ImagePlane:
    along_row, along_column = np.reshape(ct.ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, ct.PixelSpacing)
    return ImagePlane(
        series_uid=ct.SeriesInstanceUID,
        frame_of_reference_uid=ct.FrameOfReferenceUID,
        origin_mm=vector(ct.ImagePositionPatient),
        column_step_mm=vector(along_row * between_columns),
        row_step_mm=vector(along_column * between_rows),
    )


def vector(values) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return (x, y, z)


def content(path: Path) -> Any:
    """What highdicom reads: a MeasurementReport."""
    return hd.sr.srread(path).content


@pytest.fixture(scope="module")
def scene():
    return chest_scene(centre_mm=(-14.0, -203.5, 871.25))


def make_study(scene, folder, **ct) -> Study:
    files = write_ct_series(folder / "ct", scene, **GRID, **ct)
    segments = lesion_segments(scene, ct_geometry(scene, **GRID, **ct))
    return Study(folder, scene.lesions, files, write_seg(folder / "seg.dcm", files, segments))


@pytest.fixture(scope="module")
def shared(scene, tmp_path_factory) -> Study:
    return make_study(scene, tmp_path_factory.mktemp("axial"))


@pytest.fixture(scope="module")
def shared_oblique(scene, tmp_path_factory) -> Study:
    return make_study(scene, tmp_path_factory.mktemp("oblique"), direction=OBLIQUE)


@pytest.fixture
def study(shared, tmp_path) -> Study:
    return replace(shared, folder=tmp_path)


@pytest.fixture
def oblique(shared_oblique, tmp_path) -> Study:
    return replace(shared_oblique, folder=tmp_path)


# --- the four ways to say where a lesion is ------------------------------------------------


def test_points_are_those_of_the_document(study):
    path = study.sr("point")
    groups = content(path).get_planar_roi_measurement_groups()
    seeds = study.read(path).seeds
    assert [seed.position_mm for seed in seeds] == [tuple(group.roi.value[0]) for group in groups]
    for seed, lesion in zip(seeds, study.lesions, strict=True):
        assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=1e-4)
        assert (seed.extent_mm, seed.volume_mm3, seed.notices) == (None, None, ())


def test_ellipsoids_are_measured_exactly(study):
    for seed, lesion in zip(study.read(study.sr("ellipsoid")).seeds, study.lesions, strict=True):
        assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=1e-4)
        assert seed.extent_mm == pytest.approx(2 * np.array(lesion.radii_mm), abs=1e-3)
        volume_mm3 = 4 / 3 * np.pi * np.prod(lesion.radii_mm)
        assert seed.volume_mm3 == pytest.approx(volume_mm3, rel=1e-5)


def test_outlines_on_slices_make_up_a_volume(study):
    """Against the formula for the section of an ellipsoid, times that of a regular polygon."""
    for seed, lesion in zip(study.read(study.sr("polygon")).seeds, study.lesions, strict=True):
        z = np.array([float(ct.ImagePositionPatient[2]) for ct in study.cts])
        shares = (1 - ((z - lesion.centre_mm[2]) / lesion.radii_mm[2]) ** 2).clip(0)
        polygon = 64 / (2 * np.pi) * np.sin(2 * np.pi / 64)
        areas_mm2 = np.pi * lesion.radii_mm[0] * lesion.radii_mm[1] * shares * polygon
        assert seed.volume_mm3 == pytest.approx(areas_mm2.sum() * 6.0, rel=1e-4)
        expected_mm = (*lesion.centre_mm[:2], areas_mm2 @ z / areas_mm2.sum())
        assert seed.position_mm == pytest.approx(expected_mm, abs=1e-3)
        widths_mm = 2 * np.array(lesion.radii_mm[:2]) * np.sqrt(shares.max())
        expected_mm = (*widths_mm, 6.0 * np.count_nonzero(shares))
        assert seed.extent_mm == pytest.approx(expected_mm, rel=0.01)


def test_outlines_on_oblique_slices(oblique):
    for seed, lesion in zip(
        oblique.read(oblique.sr("polygon")).seeds, oblique.lesions, strict=True
    ):
        assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=0.5)
        volume_mm3 = 4 / 3 * np.pi * np.prod(lesion.radii_mm)
        assert seed.volume_mm3 == pytest.approx(volume_mm3, rel=0.04)
        corners_mm = np.concatenate(outlines_mm(lesion, oblique.cts))
        reach_mm = 3.0 * np.abs(OBLIQUE[:, 2])  # half a slice to either side
        expected_mm = np.ptp(np.concatenate([corners_mm + reach_mm, corners_mm - reach_mm]), axis=0)
        assert seed.extent_mm == pytest.approx(expected_mm, abs=1e-3)


@pytest.mark.parametrize("per", ["segment", "component"])
def test_segments_are_measured_by_the_seg(study, per):
    seeds = study.read(study.sr("segment"), per=per).seeds
    of_seg = read_seg(FileSource(study.seg_file), per=per).seeds
    for seed, expected, number in zip(seeds, of_seg, (1, 2, 3), strict=True):
        same = ("position_mm", "extent_mm", "volume_mm3", "notices")
        assert [getattr(seed, name) for name in same] == [getattr(expected, name) for name in same]
        suffix = "-component-1" if per == "component" else ""
        assert seed.lesion_id == f"group-{number}{suffix}"
        assert seed.source.component == expected.source.component


def test_seeds_carry_the_names_of_the_report(study):
    path = study.sr("segment")
    document = hd.sr.srread(path)
    found = study.read(path)
    assert found.sop_instance_uid == document.SOPInstanceUID
    assert found.series_uid == document.SeriesInstanceUID
    assert found.study_uid == document.StudyInstanceUID
    groups = content(path).get_volumetric_roi_measurement_groups()
    for number, (seed, group) in enumerate(zip(found.seeds, groups, strict=True), start=1):
        source = seed.source
        assert source.kind == "sr"
        assert source.sop_instance_uid == document.SOPInstanceUID
        assert source.series_uid == document.SeriesInstanceUID
        assert source.segment_number == number
        assert source.segment_label == study.lesions[number - 1].label
        assert source.segment_description == group.finding_type.meaning == "Neoplasm"
        assert source.algorithm_type == "MANUAL"
        assert source.tracking_id == group.tracking_identifier
        assert source.tracking_uid == group.tracking_uid
    (seed, *_) = study.read(study.sr("point")).seeds
    assert seed.source.segment_label == seed.source.tracking_id == "oncofm phantom lung lesion"
    assert (seed.source.segment_number, seed.source.algorithm_type) == (None, "")


def test_a_seg_is_read_once_for_all_groups(study):
    opened = []
    segmentations = {study.seg.SOPInstanceUID: CountingSource(study.seg_file, opened)}
    assert len(study.read(study.sr("segment"), segmentations=segmentations).seeds) == 3
    assert Counter(opened) == {study.seg_file: 1}
    study.read(study.sr("point"), segmentations=segmentations)
    assert len(opened) == 1


def test_a_referenced_segmentation_frame_stands_for_its_segment(study):
    frames = study.seg.PerFrameFunctionalGroupsSequence
    numbers = [frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber for frame in frames]
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegmentationFrame.from_segmentation(
            study.seg, frame_number=numbers.index(2) + 1
        ),
        **group_names(study.lesions[1]),
    )
    (seed,) = study.read(study.report(group)).seeds
    expected = read_seg(FileSource(study.seg_file)).seeds[1]
    assert isinstance(expected, Seed)
    assert seed.position_mm == expected.position_mm
    assert seed.source.segment_number == 2


@pytest.mark.parametrize(
    "sop_class_uid", [EnhancedSRStorage, ComprehensiveSRStorage, ExtensibleSRStorage]
)
def test_other_classes_of_reports(study, sop_class_uid):
    def declare(dataset):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class_uid

    assert (
        study.read(study.sr("segment", edit=declare)).seeds == study.read(study.sr("segment")).seeds
    )


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_transfer_syntaxes(study, syntax):
    def declare(dataset):
        dataset.file_meta.TransferSyntaxUID = syntax

    plain = study.read(study.sr("polygon")).seeds
    assert study.read(study.sr("polygon", edit=declare)).seeds == plain


# --- coordinates in images -----------------------------------------------------------------


def image_group(lesion, ct, graphic_type, columns_rows):
    region = hd.sr.ImageRegion(
        graphic_type=graphic_type,
        graphic_data=np.array(columns_rows, dtype=float),
        source_image=hd.sr.SourceImageForRegion(ct.SOPClassUID, ct.SOPInstanceUID),
    )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region, **group_names(lesion)
    )


def itk_point(file: Path, column: float, row: float) -> tuple[float, ...]:
    """Where SimpleITK puts a point of a slice; its index 0 is the centre of the first pixel."""
    return sitk.ReadImage(str(file)).TransformContinuousIndexToPhysicalPoint(
        (column - 0.5, row - 0.5, 0.0)
    )


def test_a_point_in_an_image(oblique):
    path = oblique.report(
        image_group(oblique.lesions[0], oblique.cts[17], "POINT", [[20.25, 41.5]])
    )
    (group,) = oblique.read(path).groups
    (seed,) = group.seeds
    assert seed.position_mm == pytest.approx(itk_point(oblique.files[17], 20.25, 41.5), abs=1e-4)
    assert seed.extent_mm is None
    ct = oblique.cts[17]
    assert group.reference.frame_of_reference_uid == ct.FrameOfReferenceUID
    assert group.reference.series_uids == {ct.SeriesInstanceUID}
    assert group.reference.sop_instance_uids == {ct.SOPInstanceUID}


def test_the_first_pixel_has_its_centre_half_a_pixel_from_the_corner(study):
    group = image_group(study.lesions[0], study.cts[3], "POINT", [[0.5, 0.5]])
    (seed,) = study.read(study.report(group)).seeds
    assert seed.position_mm == pytest.approx(list(study.cts[3].ImagePositionPatient))


def test_a_closed_line_in_an_image_is_an_outline(oblique):
    corners = [[10, 20], [22, 20], [22, 28], [10, 28], [10, 20]]
    group = image_group(oblique.lesions[0], oblique.cts[9], "POLYLINE", corners)
    (seed,) = oblique.read(oblique.report(group)).seeds
    assert seed.position_mm == pytest.approx(itk_point(oblique.files[9], 16, 24), abs=1e-4)
    corners_mm = [itk_point(oblique.files[9], *corner) for corner in corners]
    assert seed.extent_mm == pytest.approx(np.ptp(corners_mm, axis=0), abs=1e-3)
    assert seed.volume_mm3 is None
    assert [notice.code for notice in seed.notices] == ["lesion_exceeds_patch"]


def test_circles_and_ellipses_in_an_image(oblique):
    """4.25 mm per column and 4.5 mm per row: a circle is round in the patient."""
    circle = image_group(oblique.lesions[0], oblique.cts[9], "CIRCLE", [[16, 24], [18, 24]])
    ellipse = image_group(
        oblique.lesions[1],
        oblique.cts[9],
        "ELLIPSE",
        [[12 - 2, 30 - 2], [12 + 2, 30 + 2], [12 + 1, 30 - 1], [12 - 1, 30 + 1]],
    )
    round_one, slanted = oblique.read(oblique.report(circle, ellipse)).seeds
    assert round_one.position_mm == pytest.approx(itk_point(oblique.files[9], 16, 24), abs=1e-4)
    across, down = OBLIQUE[:, 0], OBLIQUE[:, 1]
    angles = np.linspace(0, 2 * np.pi, 100_001)[:, None]
    edge_mm = 8.5 * (np.cos(angles) * across + np.sin(angles) * down)
    assert round_one.extent_mm == pytest.approx(np.ptp(edge_mm, axis=0), abs=1e-3)
    assert slanted.position_mm == pytest.approx(itk_point(oblique.files[9], 12, 30), abs=1e-4)
    columns = np.cos(angles) * 2 + np.sin(angles)
    rows = np.cos(angles) * 2 - np.sin(angles)
    edge_mm = columns * 4.25 * across + rows * 4.5 * down
    assert slanted.extent_mm == pytest.approx(np.ptp(edge_mm, axis=0), abs=1e-3)


def test_outlines_in_several_images_make_up_a_volume(study):
    square = np.array([[10, 20], [14, 20], [14, 24], [10, 24], [10, 20]], dtype=float)
    regions = [
        hd.sr.ImageRegion(
            graphic_type="POLYLINE",
            graphic_data=square,
            source_image=hd.sr.SourceImageForRegion(ct.SOPClassUID, ct.SOPInstanceUID),
        )
        for ct in study.cts[9:12]
    ]
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_regions=regions, **group_names(study.lesions[0])
    )
    (group,) = study.read(study.report(group)).groups
    (seed,) = group.seeds
    assert seed.position_mm == pytest.approx(itk_point(study.files[10], 12, 22), abs=1e-4)
    assert seed.extent_mm == pytest.approx((17, 18, 18), abs=1e-3)
    assert seed.volume_mm3 == pytest.approx(17 * 18 * 18, rel=1e-5)
    assert group.reference.sop_instance_uids == {ct.SOPInstanceUID for ct in study.cts[9:12]}


def test_a_frame_of_a_multi_frame_image(study):
    ct = study.cts[4]
    region = hd.sr.ImageRegion(
        graphic_type="POINT",
        graphic_data=np.array([[3.0, 4.0]]),
        source_image=hd.sr.SourceImageForRegion(ct.SOPClassUID, ct.SOPInstanceUID, [7]),
    )
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region, **group_names(study.lesions[0])
    )
    path = study.report(group)
    (seed,) = study.read(path, images={f"{ct.SOPInstanceUID}#7": plane_of(ct)}).seeds
    assert seed.position_mm == pytest.approx(itk_point(study.files[4], 3, 4), abs=1e-4)
    (rejected,) = study.read(path).seeds
    assert isinstance(rejected.error, SeriesAbsentError)
    assert f"{ct.SOPInstanceUID}#7" in str(rejected.error)


def test_regions_that_measurements_were_inferred_from(study):
    """TID 1501 as web viewers write it: the coordinates are with the number, not the group."""
    ct = study.cts[5]
    coordinates = hd.sr.CoordinatesForMeasurement(
        graphic_type="CIRCLE",
        graphic_data=np.array([[16.0, 24.0], [18.0, 24.0]]),
        source_image=hd.sr.SourceImageForRegion(ct.SOPClassUID, ct.SOPInstanceUID),
    )
    numbers = [
        hd.sr.Measurement(name, value, unit, referenced_coordinates=[coordinates])
        for name, value, unit in (
            (codes.SCT.Area, 227.0, codes.UCUM.SquareMillimeter),
            (codes.SCT.Diameter, 17.0, codes.UCUM.Millimeter),
        )
    ]
    names = group_names(study.lesions[0])
    group = hd.sr.MeasurementsAndQualitativeEvaluations(measurements=numbers, **names)
    (seed,) = study.read(study.report(group)).seeds
    assert seed.position_mm == pytest.approx(itk_point(study.files[5], 16, 24), abs=1e-4)
    assert seed.extent_mm == pytest.approx((17, 17, 0), abs=1e-3)


# --- the tree ------------------------------------------------------------------------------


def groups_of(dataset) -> list[Dataset]:
    (measurements,) = (item for item in dataset.ContentSequence if concept(item) == "126010")
    return list(measurements.ContentSequence)


def concept(item) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else ""


def items_of(group, *code_values) -> list[Dataset]:
    return [item for item in group.ContentSequence if concept(item) in code_values]


def drop(group, *code_values) -> None:
    group.ContentSequence = [
        item for item in group.ContentSequence if concept(item) not in code_values
    ]


def in_space(graphic_type, points_mm, frame_of_reference_uid="1.2.3") -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "SCOORD3D"
    item.ConceptNameCodeSequence = [hd.sr.CodedConcept("111030", "DCM", "Image Region")]
    item.GraphicType = graphic_type
    item.GraphicData = np.ravel(points_mm).astype(float).tolist()
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    return item


def test_groups_count_wherever_they_are_and_plain_measurements_are_none(study):
    def rearrange(dataset):
        first, second, third = groups_of(dataset)
        drop(second, "111030")  # now without a place
        outer = Dataset()
        outer.RelationshipType = "CONTAINS"
        outer.ValueType = "CONTAINER"
        outer.ConceptNameCodeSequence = [hd.sr.CodedConcept("121070", "DCM", "Findings")]
        outer.ContentSequence = [third]
        second.ContentSequence.append(first)
        (measurements,) = (i for i in dataset.ContentSequence if concept(i) == "126010")
        measurements.ContentSequence = [second, outer]

    found = study.read(study.sr("point", edit=rearrange))
    assert [seed.lesion_id for seed in found.seeds] == ["group-2", "group-3"]
    lesions = (study.lesions[0], study.lesions[2])
    for seed, lesion in zip(found.seeds, lesions, strict=True):
        assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=1e-4)


def test_a_segment_counts_before_coordinates_and_space_before_images(study):
    scoord = image_group(study.lesions[0], study.cts[0], "POINT", [[1, 1]])[0].ContentSequence
    scoord = next(item for item in scoord if item.ValueType == "SCOORD")

    def add_coordinates(dataset):
        for group in groups_of(dataset):
            group.ContentSequence.append(in_space("POINT", (7, 8, 9)))
            group.ContentSequence.append(scoord)

    def leave_out_the_segments(dataset):
        add_coordinates(dataset)
        for group in groups_of(dataset):
            drop(group, "121191")

    plain = study.read(study.sr("segment")).seeds
    both = study.read(study.sr("segment", edit=add_coordinates)).seeds
    assert [seed.position_mm for seed in both] == [seed.position_mm for seed in plain]
    seeds = study.read(study.sr("segment", edit=leave_out_the_segments)).seeds
    assert [seed.position_mm for seed in seeds] == [(7, 8, 9)] * 3


def test_items_by_reference(study):
    """A region that is selected from an image in another place of the document."""

    def refer(dataset):
        (group,) = groups_of(dataset)
        (region,) = items_of(group, "111030")
        (image,) = region.ContentSequence
        dataset.ContentSequence.append(image)
        pointer = Dataset()
        pointer.RelationshipType = "SELECTED FROM"
        pointer.ReferencedContentItemIdentifier = [1, len(dataset.ContentSequence)]
        region.ContentSequence = [pointer]

    group = image_group(study.lesions[0], study.cts[3], "POINT", [[9.5, 6.5]])
    plain = study.read(study.report(group)).seeds
    assert study.read(study.report(group, edit=refer)).seeds == plain
    assert isinstance(plain[0], Seed)


def test_references_that_run_in_circles_end(study):
    def refer(dataset):
        for group in groups_of(dataset):
            pointer = Dataset()
            pointer.RelationshipType = "INFERRED FROM"
            pointer.ReferencedContentItemIdentifier = 1
            group.ContentSequence.append(pointer)

    assert study.read(study.sr("point", edit=refer)).seeds == study.read(study.sr("point")).seeds


# --- which images --------------------------------------------------------------------------


def test_points_refer_to_the_evidence_of_the_report(study):
    path = study.sr("point")
    (group,) = study.read(path).groups
    listed = hd.sr.srread(path).get_evidence(current_procedure_only=True)
    reference = group.reference
    assert reference.name == f"SR {pydicom.dcmread(path).SOPInstanceUID}"
    assert reference.frame_of_reference_uid == study.cts[0].FrameOfReferenceUID
    assert reference.series_uids == {study.cts[0].SeriesInstanceUID}
    assert reference.sop_instance_uids == {uid for _, _, uid, _ in listed}
    assert len(group.seeds) == 3


def test_a_seg_among_the_evidence_is_no_image(study):
    def point_instead(dataset):
        for group in groups_of(dataset):
            drop(group, "121191", "121233")
            group.ContentSequence.append(in_space("POINT", (7, 8, 9)))

    path = study.sr("segment", edit=point_instead)
    assert study.seg.SOPInstanceUID in {uid for _, _, uid, _ in hd.sr.srread(path).get_evidence()}
    (group,) = study.read(path).groups
    assert group.reference.series_uids == {study.cts[0].SeriesInstanceUID}
    assert group.reference.sop_instance_uids == {ct.SOPInstanceUID for ct in study.cts}


def test_a_source_series_counts_before_the_evidence(study):
    def name_another(dataset):
        (item,) = items_of(groups_of(dataset)[1], "121232")
        item.UID = "1.2.3.4"

    first, second = study.read(study.sr("ellipsoid", edit=name_another)).groups
    assert first.reference.series_uids == {study.cts[0].SeriesInstanceUID}
    assert first.reference.sop_instance_uids == frozenset()
    assert second.reference.series_uids == {"1.2.3.4"}
    assert [seed.lesion_id for seed in first.seeds] == ["group-1", "group-3"]
    assert [seed.lesion_id for seed in second.seeds] == ["group-2"]


def test_segments_refer_to_the_images_they_were_drawn_on(scene, study):
    path = study.sr("segment")
    groups = content(path).get_volumetric_roi_measurement_groups()
    geometry = ct_geometry(scene, **GRID)
    for found, group, lesion in zip(study.read(path).groups, groups, study.lesions, strict=True):
        sources = group.referenced_segment.source_images_for_segmentation
        uids = {image.referenced_sop_instance_uid for image in sources}
        slices = np.flatnonzero(lesion_mask(lesion, geometry).any(axis=(1, 2)))
        assert uids == {study.cts[index].SOPInstanceUID for index in slices}
        assert found.reference.sop_instance_uids == uids
        assert found.reference.drawn_on_uids == frozenset()
        assert found.reference.series_uids == {study.cts[0].SeriesInstanceUID}
        assert found.reference.frame_of_reference_uid == study.seg.FrameOfReferenceUID


def test_the_seg_knows_its_images_where_the_report_does_not(study):
    def forget(dataset):
        del dataset.CurrentRequestedProcedureEvidenceSequence
        for group in groups_of(dataset):
            drop(group, "121233")

    (group,) = study.read(study.sr("segment", edit=forget)).groups
    expected = read_seg(FileSource(study.seg_file)).groups[0].reference
    uid = pydicom.dcmread(study.folder / "segment.dcm").SOPInstanceUID
    assert group.reference == replace(expected, name=f"SR {uid}")
    assert len(group.seeds) == 3


# --- graphics ------------------------------------------------------------------------------


def turned(points, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rotation = Rotation.random(rng=random)
    return rotation.apply(points) + random.uniform(-300, 300, 3)


@pytest.mark.parametrize("seed", range(5))
def test_ellipsoids_in_any_direction(seed):
    radii_mm = np.random.default_rng(seed).uniform(2, 40, 3)
    ends = np.repeat(np.diag(radii_mm), 2, axis=0) * np.array([1, -1] * 3)[:, None]
    around = np.random.default_rng(1).normal(size=(400_000, 3))
    around *= radii_mm / np.linalg.norm(around, axis=1, keepdims=True)
    place = find_place([Graphic("ELLIPSOID", turned(ends, seed))], "it")
    assert place.position_mm == pytest.approx(turned(np.zeros((1, 3)), seed)[0])
    assert place.extent_mm == pytest.approx(np.ptp(turned(around, seed), axis=0), rel=2e-3)
    assert place.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(radii_mm))


def star(seed: int) -> np.ndarray:
    """A polygon with notches, shape (n, 2)."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 17))
    return random.uniform(4, 20, 17)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def sampled_centroid(polygon: np.ndarray) -> tuple[np.ndarray, float]:
    """Centroid and area by counting a fine grid of points, even-odd rule."""
    axis = np.arange(-20.0125, 20.1, 0.025)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crossing = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore"):
            inside ^= crossing & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return np.array([x[inside].mean(), y[inside].mean()]), inside.sum() * 0.025**2


@pytest.mark.parametrize("closing_vertex", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_polygons_of_any_shape_and_direction(seed, closing_vertex):
    polygon = star(seed)
    centroid, area_mm2 = sampled_centroid(polygon)
    corners = np.column_stack([polygon, np.zeros(len(polygon))])
    if closing_vertex:
        corners = np.vstack([corners, corners[:1]])
    lifted = [corners + np.array((0, 0, depth)) for depth in (0.0, 2.5, 5.0)]
    single = find_place([Graphic("POLYGON", turned(lifted[0], seed))], "it")
    assert single.position_mm == pytest.approx(turned([[*centroid, 0]], seed)[0], abs=0.01)
    assert single.extent_mm == pytest.approx(np.ptp(turned(corners, seed), axis=0))
    assert single.volume_mm3 is None
    stack = [Graphic("POLYGON", turned(outline, seed)) for outline in lifted]
    place = find_place([*stack, stack[1]], "it")  # the same outline twice
    assert place.position_mm == pytest.approx(turned([[*centroid, 2.5]], seed)[0], abs=0.01)
    assert place.volume_mm3 == pytest.approx(3 * 2.5 * area_mm2, rel=1e-3)
    outer = np.concatenate([lifted[0] - (0, 0, 1.25), lifted[2] - (0, 0, -1.25)])
    assert place.extent_mm == pytest.approx(np.ptp(turned(outer, seed), axis=0))


def test_a_larger_outline_weighs_more_and_a_gap_does_not_count():
    """Squares of 4, 16 and 4 mm2 every 2 mm, then after a gap one more of 4 mm2."""
    graphics = [
        Graphic("POLYGON", np.array([[-a, -a, z], [a, -a, z], [a, a, z], [-a, a, z]], float))
        for a, z in ((1, 0), (2, 2), (1, 4), (1, 12))
    ]
    place = find_place(graphics, "it")
    assert place.position_mm == pytest.approx((0, 0, (16 * 2 + 4 * 4 + 4 * 12) / 28))
    assert place.volume_mm3 == pytest.approx(28 * 2)  # steps of 2, 2 and 8 mm
    assert place.extent_mm == pytest.approx((4, 4, 14))


def test_two_outlines_on_one_plane_add_up():
    square = np.array([[0, 0, 5], [2, 0, 5], [2, 2, 5], [0, 2, 5]], float)
    other = square + np.array((10, 0, 0))
    place = find_place([Graphic("POLYGON", square), Graphic("POLYGON", other)], "it")
    assert place.position_mm == pytest.approx((6, 1, 5))
    assert place.extent_mm == pytest.approx((12, 2, 0))
    assert place.volume_mm3 is None


def test_what_encloses_counts_before_what_marks():
    square = np.array([[0, 0, 5], [2, 0, 5], [2, 2, 5], [0, 2, 5]], float)
    point = Graphic("POINT", np.array([[50.0, 60, 70]]))
    line = Graphic("POLYLINE", np.array([[0.0, 0, 0], [9, 9, 9]]))
    ends = np.array([[-1, 0, 0], [1, 0, 0], [0, -2, 0], [0, 2, 0], [0, 0, -3], [0, 0, 3]], float)
    outline, ellipsoid = Graphic("POLYGON", square), Graphic("ELLIPSOID", ends)
    assert find_place([point, line], "it").position_mm == (50, 60, 70)
    assert find_place([point, line, outline], "it").position_mm == (1, 1, 5)
    assert find_place([point, line, outline, ellipsoid], "it").position_mm == (0, 0, 0)
    assert find_place([Graphic("MULTIPOINT", point.points_mm)], "it").position_mm == (50, 60, 70)


def ends_mm(*semi_axes) -> np.ndarray:
    return np.array([sign * np.array(axis) for axis in semi_axes for sign in (-1.0, 1.0)])


ELLIPSOID = ends_mm((1, 0, 0), (0, 2, 0), (0, 0, 3))


@pytest.mark.parametrize(
    ("graphic_type", "points_mm", "sentence"),
    [
        ("MULTIPOINT", [[1, 2, 3], [4, 5, 6]], "marks 2 points"),
        ("POLYLINE", [[0, 0, 0], [9, 0, 0], [9, 9, 0]], "open line"),
        ("POLYLINE", [[0, 0, 0], [9, 0, 0], [0, 0, 0]], "encloses no area"),
        ("POLYGON", [[0, 0, 0], [9, 0, 0], [18, 0, 0], [0, 0, 0]], "encloses no area"),
        ("POLYGON", [[0, 0, 0], [9, 0, 0], [9, 9, 1], [0, 9, 0]], "not lie in one plane"),
        ("POLYGON", [[0, 0, 0], [9, 10, 0], [9, 0, 0], [0, 9, 0]], "crosses itself"),
        ("ELLIPSE", ends_mm((3, 0, 0), (0, 0, 0)), "encloses no area"),
        ("ELLIPSE", [[0, 0, 0], [9, 0, 0], [9, -1, 0], [9, 1, 0]], "do not halve"),
        ("ELLIPSOID", ends_mm((3, 0, 0), (0, 2, 0), (1, 0, 0)), "without volume"),
        ("ELLIPSOID", np.roll(ELLIPSOID, 1, axis=0), "do not halve"),
    ],
)
def test_graphics_without_one_place_are_refused(graphic_type, points_mm, sentence):
    with pytest.raises(ContourUnsupportedError, match=rf"^it .*{sentence}.*\.$"):
        find_place([Graphic(graphic_type, np.array(points_mm, float))], "it")


def test_several_ellipsoids_or_slanted_planes_are_refused():
    one, two = Graphic("ELLIPSOID", ELLIPSOID), Graphic("ELLIPSOID", ELLIPSOID + 30)
    with pytest.raises(ContourUnsupportedError, match="has 2 ellipsoids"):
        find_place([one, two], "it")
    assert find_place([one, one], "it").position_mm == (0, 0, 0)
    square = np.array([[0, 0, 5], [2, 0, 5], [2, 2, 5], [0, 2, 5]], float)
    upright = Graphic("POLYGON", square[:, [2, 0, 1]])
    with pytest.raises(ContourUnsupportedError, match="not parallel"):
        find_place([Graphic("POLYGON", square), upright], "it")


@pytest.mark.parametrize(
    ("graphic_type", "points_mm", "sentence"),
    [
        ("POINT", [[1, 2, np.nan]], "not finite"),
        ("POINT", [[1, 2, np.inf]], "not finite"),
        ("POINT", [[1, 2, 1e30]], "farther than"),
        ("POINT", [[1, 2, 3], [1, 2, 3]], "POINT of 2 points instead of 1;"),
        ("POLYGON", [[1, 2, 3], [4, 5, 6]], "POLYGON of 2 points instead of 3 or more"),
        ("ELLIPSE", [[1, 2, 3]] * 3, "ELLIPSE of 3 points instead of 4;"),
        ("ELLIPSOID", [[1, 2, 3]] * 4, "ELLIPSOID of 4 points instead of 6;"),
        ("BLOB", [[1, 2, 3]], "unknown graphic type"),
    ],
)
def test_garbled_coordinates_are_refused(graphic_type, points_mm, sentence):
    with pytest.raises(ReportInvalidError, match=rf"^it .*{sentence}.*\.$"):
        find_place([Graphic(graphic_type, np.array(points_mm, float))], "it")


# --- lesions that cannot be used -----------------------------------------------------------


def test_a_seg_that_is_not_in_the_input(study):
    found = study.read(study.sr("segment"), segmentations={})
    for seed in found.seeds:
        assert isinstance(seed, RejectedSeed)
        assert isinstance(seed.error, SeriesAbsentError)
        assert study.seg.SOPInstanceUID in str(seed.error)
    assert [seed.lesion_id for seed in found.seeds] == ["group-1", "group-2", "group-3"]
    assert found.groups[0].reference.series_uids == {study.cts[0].SeriesInstanceUID}
    assert found.seeds[1].source.tracking_id == "oncofm phantom mediastinal lesion"


def test_a_seg_that_cannot_be_read(study):
    broken = study.folder / "broken.dcm"
    broken.write_bytes(study.seg_file.read_bytes()[:3000])
    uid, opened = study.seg.SOPInstanceUID, []
    seeds = study.read(
        study.sr("segment"), segmentations={uid: CountingSource(broken, opened)}
    ).seeds
    assert [type(seed.error) for seed in seeds] == [SegmentationInvalidError] * 3
    assert len(opened) == 1


def test_an_image_that_is_not_in_the_input(study):
    group = image_group(study.lesions[0], study.cts[3], "POINT", [[9.5, 6.5]])
    (seed,) = study.read(study.report(group), images={}).seeds
    assert isinstance(seed.error, SeriesAbsentError)
    assert study.cts[3].SOPInstanceUID in str(seed.error)


def test_a_minimum_volume(study):
    for style in ("ellipsoid", "polygon", "segment"):
        seeds = study.read(study.sr(style), min_volume_mm3=4500).seeds
        assert [type(seed) for seed in seeds] == [Seed, Seed, RejectedSeed]
        assert isinstance(seeds[2].error, SegmentEmptyError)
        assert "4500 mm3" in str(seeds[2].error)
    assert all(isinstance(s, Seed) for s in study.read(study.sr("point"), min_volume_mm3=1).seeds)


def test_a_lesion_longer_than_the_patch_is_said_to_be(study):
    def stretch(dataset):
        for length_mm, group in zip((25.0, 25.1, 10.0), groups_of(dataset), strict=True):
            (surface,) = items_of(group, "121231")
            ends = ends_mm((1, 0, 0), (0, length_mm, 0), (0, 0, 3))
            surface.GraphicData = ends.ravel().tolist()

    seeds = study.read(study.sr("ellipsoid", edit=stretch)).seeds
    codes_of = [[notice.code for notice in seed.notices] for seed in seeds]
    assert codes_of == [[], ["lesion_exceeds_patch"], []]
    assert "group-2 measures 2 x 50 x 6 mm" in seeds[1].notices[0].message


def on_segment(change):
    """Change the Referenced SOP Sequence of the first group's segment."""

    def edit(dataset):
        (segment,) = items_of(groups_of(dataset)[0], "121191")
        change(segment.ReferencedSOPSequence[0], segment)

    return edit


def name_an_unknown_segment(reference, item):
    reference.ReferencedSegmentNumber = 9


def name_two_segments(reference, item):
    reference.ReferencedSegmentNumber = [1, 2]


def name_no_segment(reference, item):
    del reference.ReferencedSegmentNumber


def empty_the_reference(reference, item):
    item.ReferencedSOPSequence = []


def refer_to_two_objects(reference, item):
    item.ReferencedSOPSequence = [reference, reference]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (name_an_unknown_segment, r"refers to segment 9 of SEG 2\.25\.\d+, which has 3 segments"),
        (name_two_segments, "refers to 2 segments at once"),
        (name_no_segment, "refers to 3 segments at once"),
        (empty_the_reference, "is truncated or damaged"),
        (refer_to_two_objects, "is truncated or damaged"),
    ],
)
def test_a_segment_that_cannot_be_found_rejects_its_group_alone(study, change, sentence):
    path = study.sr("segment", edit=on_segment(change))
    seeds = {seed.lesion_id: seed for seed in study.read(path).seeds}
    assert list(map(type, (seeds["group-2"], seeds["group-3"]))) == [Seed, Seed]
    with pytest.raises(ReportInvalidError, match=rf"^group-1 of SR 2\.25\.\d+ {sentence}.*\.$"):
        raise seeds["group-1"].error


def test_the_only_segment_needs_no_number(scene, study):
    segments = lesion_segments(scene, ct_geometry(scene, **GRID))[:1]
    seg_file = write_seg(study.folder / "one.dcm", study.files, segments)
    one = replace(study, lesions=study.lesions[:1], seg_file=seg_file)
    (seed,) = one.read(one.sr("segment", edit=on_segment(name_no_segment))).seeds
    assert seed.source.segment_number == 1


def second_segment(group):
    (segment,) = items_of(group, "121191")
    other = pydicom.Dataset.from_json(segment.to_json())
    other.ReferencedSOPSequence[0].ReferencedSegmentNumber = 3
    group.ContentSequence.append(other)


def another_frame_of_reference(group):
    group.ContentSequence.append(in_space("POINT", (1, 2, 3), "1.2.3"))
    group.ContentSequence.append(in_space("POINT", (1, 2, 3), "1.2.4"))
    drop(group, "121191")


def elsewhere(group):
    drop(group, "121191")
    item = Dataset()
    item.ValueType = "COMPOSITE"
    item.ConceptNameCodeSequence = [hd.sr.CodedConcept("130488", "DCM", "Region in Space")]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840", "1.2.5"
    item.ReferencedSOPSequence = [reference]
    group.ContentSequence.append(item)


def text_for_numbers(group):
    drop(group, "121191")
    item = in_space("POINT", (1, 2, 3))
    del item.GraphicData
    item.add(pydicom.DataElement("GraphicData", "LO", "somewhere"))
    group.ContentSequence.append(item)


def wrong_count(group):
    drop(group, "121191")
    group.ContentSequence.append(in_space("POINT", (1, 2, 3, 4)))


def without_type(group):
    drop(group, "121191")
    item = in_space("POINT", (1, 2, 3))
    del item.GraphicType
    group.ContentSequence.append(item)


def not_a_number(group):
    drop(group, "121191")
    group.ContentSequence.append(in_space("POINT", (1, np.nan, 3)))


def dangling_reference(group):
    pointer = Dataset()
    pointer.ReferencedContentItemIdentifier = [1, 99, 4]
    group.ContentSequence.append(pointer)


def reference_to_position_0(group):
    pointer = Dataset()
    pointer.ReferencedContentItemIdentifier = [1, 0]
    group.ContentSequence.append(pointer)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (second_segment, "refers to 2 segments at once; export the report with one of them"),
        (another_frame_of_reference, "has coordinates in 2 frames of reference"),
        (elsewhere, r"has its region in object 1\.2\.5"),
        (text_for_numbers, "is truncated or damaged"),
        (wrong_count, "is truncated or damaged"),
        (without_type, "is truncated or damaged"),
        (not_a_number, "has coordinates that are not finite"),
        (dangling_reference, "is truncated or damaged"),
        (reference_to_position_0, "is truncated or damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_garbled_group_is_rejected_alone(study, change, sentence):
    path = study.sr("segment", edit=lambda dataset: change(groups_of(dataset)[1]))
    seeds = {seed.lesion_id: seed for seed in study.read(path).seeds}
    assert {name: type(seed) for name, seed in seeds.items()} == {
        "group-1": Seed,
        "group-2": RejectedSeed,
        "group-3": Seed,
    }
    with pytest.raises(ReportInvalidError, match=rf"^group-2 of SR 2\.25\.\d+ {sentence}.*\.$"):
        raise seeds["group-2"].error


@pytest.mark.parametrize("n_images", [0, 2])
def test_coordinates_that_are_not_selected_from_one_image(study, n_images):
    def choose(dataset):
        (region,) = items_of(groups_of(dataset)[0], "111030")
        other = pydicom.Dataset.from_json(region.ContentSequence[0].to_json())
        other.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = study.cts[5].SOPInstanceUID
        region.ContentSequence = [*region.ContentSequence, other][: n_images or -2]

    group = image_group(study.lesions[0], study.cts[3], "POINT", [[9.5, 6.5]])
    (seed,) = study.read(study.report(group, edit=choose)).seeds
    assert isinstance(seed.error, ReportInvalidError)
    assert f"selected from {n_images} images instead of one" in str(seed.error)


@pytest.mark.parametrize(
    ("graphic_type", "values", "sentence"),
    [
        ("POINT", [np.nan, 3.0], "not finite"),
        ("POINT", [np.inf, 3.0], "not finite"),
        ("POINT", [3e38, 3.0], "farther than"),
        ("CIRCLE", [5.0, 5.0, 5.0, 5.0], "encloses no area"),
        ("CIRCLE", [5.0, 5.0], "unknown graphic type"),
        ("POLYLINE", [5.0, 5.0, 9.0, 9.0], "open line"),
        ("MULTIPOINT", [5.0, 5.0, 9.0, 9.0], "marks 2 points"),
        ("POINT", [5.0, 5.0, 9.0], "truncated or damaged"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_garbled_coordinates_in_an_image(study, graphic_type, values, sentence):
    def garble(dataset):
        (region,) = items_of(groups_of(dataset)[0], "111030")
        region.GraphicType, region.GraphicData = graphic_type, values

    group = image_group(study.lesions[0], study.cts[3], "POINT", [[9.5, 6.5]])
    path = study.report(group, edit=garble)
    (seed,) = study.read(path).seeds
    assert isinstance(seed, RejectedSeed)
    with pytest.raises((ReportInvalidError, ContourUnsupportedError), match=sentence):
        raise seed.error


def test_coordinates_in_images_of_two_frames_of_reference(study):
    def add(dataset):
        (group,) = groups_of(dataset)
        (region,) = items_of(group, "111030")
        other = pydicom.Dataset.from_json(region.to_json())
        image = other.ContentSequence[0].ReferencedSOPSequence[0]
        image.ReferencedSOPInstanceUID = "1.2.3"
        group.ContentSequence.append(other)

    group = image_group(study.lesions[0], study.cts[3], "POINT", [[9.5, 6.5]])
    plane = replace(plane_of(study.cts[3]), frame_of_reference_uid="1.2.4")
    (seed,) = study.read(
        study.report(group, edit=add), images=study.planes | {"1.2.3": plane}
    ).seeds
    assert "in 2 frames of reference" in str(seed.error)


# --- reports that cannot be used -----------------------------------------------------------


def remove_the_content(dataset):
    del dataset.ContentSequence


def remove_the_groups(dataset):
    (measurements,) = (item for item in dataset.ContentSequence if concept(item) == "126010")
    measurements.ContentSequence = []


def remove_the_places(dataset):
    for group in groups_of(dataset):
        drop(group, "111030")


def declare_a_dose_report(dataset):
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = XRayRadiationDoseSRStorage


def garble_the_evidence(dataset):
    del (
        dataset.CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence[0]
        .SeriesInstanceUID
    )


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (remove_the_content, "has no content"),
        (remove_the_groups, "names no place of a lesion in its 0 measurement groups"),
        (remove_the_places, "names no place of a lesion in its 3 measurement groups"),
        (declare_a_dose_report, "is no measurement report by its SOP Class UID"),
        (garble_the_evidence, "is truncated or damaged"),
    ],
)
def test_a_report_without_lesions_is_refused_with_a_sentence(study, edit, sentence):
    path = study.sr("point", edit=edit)
    with pytest.raises(ReportInvalidError, match=rf"^SR 2\.25\.\d+ {sentence}.*\.$"):
        study.read(path)


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_an_impossible_threshold_is_a_mistake_of_the_caller(study, threshold):
    with pytest.raises(ValueError, match="threshold"):
        study.read(study.folder / "sr.dcm", threshold=threshold)


def test_other_files_are_no_reports(study):
    with pytest.raises(ReportInvalidError, match="no measurement report"):
        study.read(study.files[0])
    text = study.folder / "text.dcm"
    text.write_text("not DICOM")
    with pytest.raises(ReportInvalidError, match=r"text\.dcm is truncated or damaged"):
        study.read(text)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_file_cut_anywhere_is_refused(study, syntax, undefined_length):
    """pydicom would end its sequences early, and lesions would be missing."""

    def encode(dataset):
        dataset.file_meta.TransferSyntaxUID = syntax
        for element in dataset.iterall():
            if element.VR == "SQ" and undefined_length:
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True

    path = study.sr("point", edit=encode)
    assert study.read(path).seeds == study.read(study.sr("point")).seeds
    whole = study.sr("point", edit=encode).read_bytes()
    cut = study.folder / "cut.dcm"
    for n_bytes in (*range(0, len(whole), 211), *range(len(whole) - 24, len(whole))):
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(ReportInvalidError):
            study.read(cut)


def test_a_tree_of_any_depth_is_refused_or_read(study):
    def nest(dataset):
        inner = dataset.ContentSequence
        for _ in range(60):
            item = Dataset()
            item.ValueType = "CONTAINER"
            item.ContentSequence = inner
            inner = pydicom.Sequence([item])
        dataset.ContentSequence = inner

    plain = study.read(study.sr("point")).seeds
    assert study.read(study.sr("point", edit=nest)).seeds == plain
    path = study.folder / "deep.dcm"
    path.write_bytes(endless_nesting(20_000))
    with pytest.raises(ReportInvalidError, match=r"deep\.dcm is truncated or damaged"):
        study.read(path)


def endless_nesting(depth: int) -> bytes:
    """A report in Implicit VR whose content holds content holds content ..."""
    syntax, sop_class = b"1.2.840.10008.1.2\0", b"1.2.840.10008.5.1.4.1.1.88.34\0"
    start = bytes.fromhex("4000 30a7 ffffffff feff 00e0 ffffffff".replace(" ", ""))
    end = bytes.fromhex("feff 0de0 00000000 feff dde0 00000000".replace(" ", ""))
    meta = b"\2\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    meta = b"\2\0\0\0UL\4\0" + len(meta).to_bytes(4, "little") + meta
    identity = b"\x08\0\x16\0" + len(sop_class).to_bytes(4, "little") + sop_class
    return bytes(128) + b"DICM" + meta + identity + start * depth + end * depth


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("style", ["polygon", "segment"])
def test_damage_anywhere_gives_a_result_or_the_one_error(study, style):
    path = study.sr(style)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    options = {
        "segmentations": {study.seg.SOPInstanceUID: FileSource(study.seg_file)},
        "images": study.planes,
    }
    random = np.random.default_rng(0)
    outcomes = Counter()
    for _ in range(40):
        damaged = whole.copy()
        damaged[random.integers(132, len(whole), 8)] = random.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        try:
            outcomes.update(type(seed).__name__ for seed in study.read(path, **options).seeds)
        except ReportInvalidError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 5
    assert outcomes["Seed"] > 10


def test_messages_hold_no_names_of_the_patient(study):
    def personal(dataset):
        dataset.PatientName = "CANARY^NAME"
        for group in groups_of(dataset):
            items_of(group, "112039")[0].TextValue = "CANARY lesion"
            items_of(group, "111030")[0].GraphicType = "CANARY"

    for seed in study.read(study.sr("point", edit=personal)).seeds:
        assert "CANARY" not in str(seed.error)


# --- the writer, and what it costs to read -------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_phantom_reports_are_valid_and_always_the_same_bytes(study, style):
    path = study.sr(style)
    written = path.read_bytes()
    assert study.sr(style).read_bytes() == written
    verdict = subprocess.run(
        [require_tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    lines = (verdict.stdout + verdict.stderr).splitlines()
    assert "Comprehensive3DSR" in lines
    assert not [line for line in lines if line.startswith("Error")]
    dump = subprocess.run(
        [require_tool("dsrdump"), str(path)], capture_output=True, text=True, check=True
    )
    assert dump.stdout.count("Measurement Group") == 3


def test_a_report_of_segments_needs_a_seg(study):
    with pytest.raises(ValueError, match="seg_file"):
        write_sr(study.folder / "sr.dcm", study.files, study.lesions, style="segment")


def test_reading_does_not_import_highdicom():
    code = "import sys, oncofm.seeds.dicom_sr; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Seeds from SEG objects, against highdicom's volumes and SimpleITK's statistics."""

import subprocess
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from masks import (
    DIRECTIONS,
    OBLIQUE,
    assert_same_components,
    blobs,
    corner_extent_mm,
    itk_components,
    itk_shapes,
    to_image,
)
from pydicom.pixels import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from tools import require_tool

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.enhanced import write_enhanced_ct
from oncofm.demo.phantom import chest_scene, regular_geometry, slice_points_mm
from oncofm.demo.segmentation import SegmentMask, lesion_segments, write_seg
from oncofm.errors import SegmentationInvalidError, SegmentEmptyError
from oncofm.imaging.sources import FileSource
from oncofm.seeds.dicom_seg import read_seg
from oncofm.seeds.seed import RejectedSeed, Seed

GRID = {"shape": (72, 66, 50), "spacing_mm": (4.25, 4.5, 6.0)}
COARSE = {"shape": (60, 50, 30), "spacing_mm": (4.0, 5.0, 6.0)}
EMPTY = np.zeros((30, 50, 60), bool)


@dataclass(frozen=True)
class Study:
    folder: Path
    files: list[Path]

    def seg(self, segments, **options) -> Path:
        return write_seg(self.folder / "seg.dcm", self.files, segments, **options)


@pytest.fixture(scope="module")
def scene():
    return chest_scene(centre_mm=(-14.0, -203.5, 871.25))


@pytest.fixture(scope="module")
def ct(scene, tmp_path_factory) -> list[Path]:
    return write_ct_series(tmp_path_factory.mktemp("ct"), scene, **GRID)


@pytest.fixture(scope="module")
def coarse_ct(scene, tmp_path_factory) -> list[Path]:
    return write_ct_series(tmp_path_factory.mktemp("coarse"), scene, **COARSE)


@pytest.fixture
def study(ct, tmp_path) -> Study:
    return Study(tmp_path, ct)


@pytest.fixture
def coarse(coarse_ct, tmp_path) -> Study:
    """For masks that are made by hand, voxel by voxel."""
    return Study(tmp_path, coarse_ct)


def read(path: Path, **options):
    return read_seg(FileSource(path), **options)


def volumes_by_highdicom(path: Path, threshold: float = 0.5) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mask and affine of each segment."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=False)
    masks = np.moveaxis(volume.array >= max(threshold, 1e-9), -1, 0)
    return [(mask, volume.affine) for mask in masks]


def assert_agrees(seed: Seed, mask: np.ndarray, affine: np.ndarray) -> None:
    ((_, centroid_mm, volume_mm3),) = itk_shapes(to_image(mask.astype(np.uint8), affine))
    assert seed.position_mm == pytest.approx(centroid_mm, abs=1e-3)
    assert seed.volume_mm3 == pytest.approx(volume_mm3, rel=1e-6)
    assert seed.extent_mm == pytest.approx(corner_extent_mm(mask, affine), abs=1e-3)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_seeds_equal_an_independent_computation(scene, tmp_path, kind, direction):
    files = write_ct_series(tmp_path / "ct", scene, direction=direction, **GRID)
    segments = lesion_segments(scene, ct_geometry(scene, direction=direction, **GRID))
    path = write_seg(tmp_path / "seg.dcm", files, segments, segmentation_type=kind)
    found = read(path)
    assert len(found.seeds) == 3
    for seed, (mask, affine) in zip(found.seeds, volumes_by_highdicom(path), strict=True):
        assert_agrees(seed, mask, affine)
        assert seed.notices == ()


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_the_segmentations_own_grid_counts_not_the_cts(scene, study, kind):
    grid = regular_geometry((97, 103, 61), (3.1, 2.7, 2.3), scene.centre_mm, OBLIQUE)
    path = study.seg(lesion_segments(scene, grid), segmentation_type=kind, geometry=grid)
    found = read(path)
    for seed, lesion, (mask, affine) in zip(
        found.seeds, scene.lesions, volumes_by_highdicom(path), strict=True
    ):
        assert_agrees(seed, mask, affine)
        assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=0.5)


def test_segments_keep_their_names_and_the_object_its_uids(scene, study):
    def describe(dataset):
        dataset.SegmentSequence[1].SegmentDescription = "sous la carène, größer"

    path = study.seg(lesion_segments(scene, ct_geometry(scene, **GRID)), edit=describe)
    found = read(path)
    dataset = pydicom.dcmread(path)
    assert found.sop_instance_uid == dataset.SOPInstanceUID
    assert (found.series_uid, found.study_uid) == (
        dataset.SeriesInstanceUID,
        dataset.StudyInstanceUID,
    )
    assert [seed.lesion_id for seed in found.seeds] == ["segment-1", "segment-2", "segment-3"]
    source = found.seeds[1].source
    assert source.kind == "seg"
    assert source.sop_instance_uid == dataset.SOPInstanceUID
    assert source.segment_number == 2
    assert source.segment_label == "mediastinal lesion"
    assert source.segment_description == "sous la carène, größer"
    assert source.algorithm_type == "MANUAL"
    assert source.tracking_id == "oncofm phantom mediastinal lesion"
    assert source.tracking_uid == dataset.SegmentSequence[1].TrackingUID


def test_references_to_the_ct_are_kept(scene, study):
    path = study.seg(lesion_segments(scene, ct_geometry(scene, **GRID)))
    cts = [pydicom.dcmread(file, stop_before_pixels=True) for file in study.files]
    reference = read(path).groups[0].reference
    assert reference.frame_of_reference_uid == cts[0].FrameOfReferenceUID
    assert reference.series_uids == {cts[0].SeriesInstanceUID}
    assert reference.sop_instance_uids == {ct.SOPInstanceUID for ct in cts}
    assert reference.drawn_on_uids < reference.sop_instance_uids
    for lesion in scene.lesions:  # drawn on a slice through the middle of each lesion
        nearest = min(cts, key=lambda ct: abs(ct.ImagePositionPatient[2] - lesion.centre_mm[2]))
        assert nearest.SOPInstanceUID in reference.drawn_on_uids


@pytest.mark.parametrize(
    ("kind", "transfer_syntax"),
    [
        ("BINARY", ImplicitVRLittleEndian),
        ("BINARY", DeflatedExplicitVRLittleEndian),
        ("FRACTIONAL", ExplicitVRLittleEndian),
        ("FRACTIONAL", RLELossless),
        ("FRACTIONAL", JPEG2000Lossless),
        ("FRACTIONAL", JPEGLSLossless),
        ("LABELMAP", RLELossless),
        ("LABELMAP", JPEG2000Lossless),
        ("LABELMAP", DeflatedExplicitVRLittleEndian),
    ],
)
def test_any_transfer_syntax_gives_the_same_seeds(scene, study, kind, transfer_syntax):
    segments = lesion_segments(scene, ct_geometry(scene, **GRID))
    plain = read(study.seg(segments))
    other = read(study.seg(segments, segmentation_type=kind, transfer_syntax=transfer_syntax))
    classes = {seed.source.sop_class_uid for seed in other.seeds}
    assert len(classes) == 1
    assert tuple(in_class(seed, *classes) for seed in plain.seeds) == other.seeds


def in_class(seed, sop_class_uid):
    return replace(seed, source=replace(seed.source, sop_class_uid=sop_class_uid))


def test_the_background_of_a_label_map_may_be_another_value(scene, study):
    def exchange_background(dataset):
        pixels = dataset.pixel_array
        values = np.arange(256, dtype=np.uint8)
        values[[0, 1, 200]] = 200, 0, 1
        dataset.PixelData = values[pixels].tobytes()
        dataset.PixelPaddingValue = 200
        for item in dataset.SegmentSequence:
            item.SegmentNumber = int(values[item.SegmentNumber])

    segments = lesion_segments(scene, ct_geometry(scene, **GRID))
    plain = read(study.seg(segments, segmentation_type="LABELMAP")).seeds
    seeds = read(study.seg(segments, segmentation_type="LABELMAP", edit=exchange_background)).seeds
    assert [seed.lesion_id for seed in seeds] == ["segment-0", "segment-2", "segment-3"]
    assert [seed.position_mm for seed in seeds] == [seed.position_mm for seed in plain]


def test_segmentation_of_an_enhanced_ct(scene, tmp_path):
    enhanced = write_enhanced_ct(tmp_path / "ct.dcm", scene, direction=OBLIQUE, **GRID)
    segments = lesion_segments(scene, ct_geometry(scene, direction=OBLIQUE, **GRID))
    path = write_seg(tmp_path / "seg.dcm", [enhanced], segments)
    found = read(path)
    for seed, (mask, affine) in zip(found.seeds, volumes_by_highdicom(path), strict=True):
        assert_agrees(seed, mask, affine)
    ct = pydicom.dcmread(enhanced, stop_before_pixels=True)
    assert found.groups[0].reference.series_uids == {ct.SeriesInstanceUID}
    assert found.groups[0].reference.drawn_on_uids == {ct.SOPInstanceUID}


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_big_endian_as_dcmtk_writes_it(scene, study, vr):
    def choose_vr(dataset):
        dataset["PixelData"].VR = vr

    dcmconv = require_tool("dcmconv")
    path = study.seg(lesion_segments(scene, ct_geometry(scene, **GRID)), edit=choose_vr)
    big_endian = study.folder / "big.dcm"
    subprocess.run([dcmconv, "+tb", str(path), str(big_endian)], check=True)
    pixels = [pydicom.dcmread(file).PixelData for file in (path, big_endian)]
    assert (pixels[0] == pixels[1]) == (vr == "OB")  # OW is swapped
    assert read(big_endian).seeds == read(path).seeds


@pytest.mark.parametrize("columns", [59, 61, 64])
def test_frames_that_begin_inside_a_byte(scene, tmp_path, columns):
    options = {"shape": (columns, 51, 9), "spacing_mm": (2.0, 2.0, 3.0)}
    files = write_ct_series(tmp_path / "ct", scene, **options)
    masks = [SegmentMask(str(seed), blobs((9, 51, columns), seed)) for seed in range(3)]
    path = write_seg(tmp_path / "seg.dcm", files, masks)
    for seed, (mask, affine) in zip(read(path).seeds, volumes_by_highdicom(path), strict=True):
        assert_agrees(seed, mask, affine)


@pytest.mark.parametrize("omit_empty_frames", [True, False])
def test_overlapping_segments(scene, coarse, omit_empty_frames):
    masks = [blobs((30, 50, 60), seed, share=0.5) for seed in range(4)]
    assert (masks[0] & masks[1]).any()
    path = coarse.seg(
        [SegmentMask(str(number), mask) for number, mask in enumerate(masks)],
        omit_empty_frames=omit_empty_frames,
    )
    for seed, (mask, affine) in zip(read(path).seeds, volumes_by_highdicom(path), strict=True):
        assert_agrees(seed, mask, affine)


@pytest.mark.parametrize("max_fractional_value", [255, 100, 10])
@pytest.mark.parametrize("threshold", [0.5, 0.2, 1.0])
def test_fractions_count_from_the_threshold_on(scene, study, max_fractional_value, threshold):
    fractions = []
    for lesion in scene.lesions:
        geometry = ct_geometry(scene, **GRID)
        points_mm = np.stack([slice_points_mm(geometry, k) for k in range(50)])
        radius = np.linalg.norm((points_mm - lesion.centre_mm) / lesion.radii_mm, axis=-1)
        fractions.append(SegmentMask(lesion.label, np.clip(1.8 - radius, 0, 1)))
    path = study.seg(
        fractions, segmentation_type="FRACTIONAL", max_fractional_value=max_fractional_value
    )
    found = read(path, threshold=threshold)
    expected = volumes_by_highdicom(path, threshold)
    for seed, (mask, affine) in zip(found.seeds, expected, strict=True):
        assert_agrees(seed, mask, affine)


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_an_impossible_threshold_is_a_mistake_of_the_caller(study, threshold):
    with pytest.raises(ValueError, match="threshold"):
        read(study.folder / "seg.dcm", threshold=threshold)


def test_frames_in_any_order(scene, study):
    def shuffle(dataset):
        order = np.random.default_rng(5).permutation(int(dataset.NumberOfFrames))
        frames = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = [frames[index] for index in order]
        dataset.PixelData = pack_bits(dataset.pixel_array[order])

    segments = lesion_segments(scene, ct_geometry(scene, **GRID))
    in_order = read(study.seg(segments))
    assert read(study.seg(segments, edit=shuffle)).seeds == in_order.seeds


def test_segment_numbers_need_not_count_from_one(scene, study):
    def renumber(dataset):
        numbers = {1: 7, 2: 300, 3: 2}
        for item in dataset.SegmentSequence:
            item.SegmentNumber = numbers[item.SegmentNumber]
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            item = frame.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = numbers[item.ReferencedSegmentNumber]

    segments = lesion_segments(scene, ct_geometry(scene, **GRID))
    plain = read(study.seg(segments)).seeds
    seeds = read(study.seg(segments, edit=renumber)).seeds
    assert [seed.lesion_id for seed in seeds] == ["segment-7", "segment-300", "segment-2"]
    assert [seed.position_mm for seed in seeds] == [seed.position_mm for seed in plain]


def test_a_sheared_stack_is_measured_where_its_frames_are(scene, tmp_path):
    """Gantry tilt: each frame starts elsewhere in its plane."""
    origins_mm = ct_geometry(scene, **GRID).origins_mm.copy()
    origins_mm[:, 1] += 0.4 * (origins_mm[:, 2] - scene.centre_mm[2])
    geometry = ct_geometry(scene, slice_origins_mm=origins_mm, **GRID)
    files = write_ct_series(tmp_path / "ct", scene, slice_origins_mm=origins_mm, **GRID)
    segments = lesion_segments(scene, geometry)
    path = write_seg(tmp_path / "seg.dcm", files, segments)
    points_mm = np.stack([slice_points_mm(geometry, k) for k in range(50)])
    for seed, segment in zip(read(path).seeds, segments, strict=True):
        expected_mm = points_mm[segment.mask].mean(axis=0)
        assert seed.position_mm == pytest.approx(expected_mm, abs=1e-3)
        assert seed.volume_mm3 == pytest.approx(segment.mask.sum() * 4.25 * 4.5 * 6)


def test_on_uneven_planes_a_thick_voxel_weighs_more(scene, tmp_path):
    """2 mm below, 4.5 mm above: the centroid stays that of the lesion."""
    steps_mm = np.array([2.0] * 24 + [4.5] * 12)
    options = {"shape": (90, 70, 37), "spacing_mm": (2.0, 2.0, 2.0)}
    lesion = scene.lesions[0]
    origins_mm = np.repeat(ct_geometry(scene, **options).origins_mm[:1], 37, axis=0)
    origins_mm[:, 0] = lesion.centre_mm[0] - 90
    origins_mm[:, 2] = lesion.centre_mm[2] - 48 + np.concatenate([[0], np.cumsum(steps_mm)])
    geometry = ct_geometry(scene, slice_origins_mm=origins_mm, **options)
    files = write_ct_series(tmp_path / "ct", scene, slice_origins_mm=origins_mm, **options)
    segments = lesion_segments(scene, geometry)[:1]
    (seed,) = read(write_seg(tmp_path / "seg.dcm", files, segments)).seeds
    assert isinstance(seed, Seed)
    assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=0.4)
    assert seed.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(lesion.radii_mm), rel=0.05)
    (component,) = read(tmp_path / "seg.dcm", per="component").seeds
    assert component.position_mm == seed.position_mm
    points_mm = np.stack([slice_points_mm(geometry, k) for k in range(37)])
    plain_mean_mm = points_mm[segments[0].mask].mean(axis=0)
    assert abs(plain_mean_mm[2] - lesion.centre_mm[2]) > 1.5


# --- components and notices ----------------------------------------------------------------


@pytest.mark.parametrize("seed_of_blobs", range(4))
def test_components_equal_simpleitks(scene, coarse, seed_of_blobs):
    mask = blobs((30, 50, 60), seed_of_blobs, share=0.03)
    path = coarse.seg([SegmentMask("blobs", mask)], segmentation_type="BINARY")
    ((by_highdicom, affine),) = volumes_by_highdicom(path)
    expected = itk_components(to_image(by_highdicom.astype(np.uint8), affine))
    seeds = read(path, per="component").seeds
    assert len(seeds) == len(expected) > 10
    assert [seed.volume_mm3 for seed in seeds] == pytest.approx([size for _, size in expected])
    assert_same_components(seeds, expected)
    assert [seed.lesion_id for seed in seeds[:2]] == [
        "segment-1-component-1",
        "segment-1-component-2",
    ]
    assert [seed.source.component for seed in seeds] == list(range(1, len(seeds) + 1))
    assert read(path, per="component").seeds == seeds


def test_components_of_equal_size_stand_in_the_order_of_their_first_voxels(coarse):
    mask = EMPTY.copy()
    mask[20, 10, 10:12] = mask[5, 30, 40:42] = mask[5, 10, 50:52] = mask[25, 5:8, 5] = True
    seeds = read(coarse.seg([SegmentMask("four", mask)]), per="component").seeds
    assert [round(seed.volume_mm3 / 120) for seed in seeds] == [3, 2, 2, 2]
    z = [round((seed.position_mm[2] - seeds[0].position_mm[2]) / 6) for seed in seeds]
    assert z == [0, -20, -20, -5]
    assert seeds[1].position_mm[1] < seeds[2].position_mm[1]


def test_corners_connect_but_a_gap_of_one_frame_does_not(coarse):
    mask = EMPTY.copy()
    mask[10, 10, 10] = mask[11, 11, 11] = mask[12, 10, 12] = True
    mask[14, 10, 12] = True
    seeds = read(coarse.seg([SegmentMask("chain", mask)]), per="component").seeds
    assert [round(seed.volume_mm3 / 120) for seed in seeds] == [3, 1]


def test_small_components_are_left_out_and_said_to_be(coarse):
    mask = EMPTY.copy()
    mask[10:13, 10:13, 10:13] = mask[20, 20, 20] = mask[22, 20, 20] = True
    path = coarse.seg([SegmentMask("speckled", mask)])
    (seed,) = read(path, per="component", min_volume_mm3=200).seeds
    assert [notice.code for notice in seed.notices] == ["small_components_left_out"]
    assert seed.notices[0].message.startswith("2 of 3 components")
    (whole,) = read(path, min_volume_mm3=200).seeds
    assert "multifocal_segment" not in [notice.code for notice in whole.notices]
    for per in ("segment", "component"):
        (rejected,) = read(path, per=per, min_volume_mm3=1e6).seeds
        assert isinstance(rejected, RejectedSeed)
        assert isinstance(rejected.error, SegmentEmptyError)


def test_a_multifocal_segment_is_said_to_be(coarse):
    mask = EMPTY.copy()
    mask[5:8, 5:8, 5:8] = mask[20:22, 40:42, 50:52] = True
    (seed,) = read(coarse.seg([SegmentMask("two", mask)])).seeds
    codes = [notice.code for notice in seed.notices]
    assert codes == ["multifocal_segment", "seed_outside_segment", "lesion_exceeds_patch"]
    assert "2 separate parts, the largest with 77%" in seed.notices[0].message


def test_the_middle_of_a_ring_is_outside_of_it(coarse):
    mask = EMPTY.copy()
    mask[10, 20:25, 20:25] = True
    mask[10, 21:24, 21:24] = False
    (seed,) = read(coarse.seg([SegmentMask("ring", mask)])).seeds
    assert [notice.code for notice in seed.notices] == ["seed_outside_segment"]


@pytest.mark.parametrize(("n_voxels", "exceeds"), [(12, False), (13, True)])
def test_a_lesion_longer_than_the_patch_is_said_to_be(coarse, n_voxels, exceeds):
    mask = EMPTY.copy()
    mask[10, 20, 20 : 20 + n_voxels] = True  # 4 mm each
    (seed,) = read(coarse.seg([SegmentMask("bar", mask)])).seeds
    assert [notice.code for notice in seed.notices] == ["lesion_exceeds_patch"] * exceeds


def test_a_segment_without_voxels_is_rejected_and_its_neighbours_are_not(scene, study):
    segments = lesion_segments(scene, ct_geometry(scene, **GRID))
    empty = SegmentMask("nothing", np.zeros((50, 66, 72), bool))
    for per in ("segment", "component"):
        seeds = read(study.seg([segments[0], empty, segments[1]]), per=per).seeds
        assert [type(seed) for seed in seeds] == [Seed, RejectedSeed, Seed]
        assert isinstance(seeds[1].error, SegmentEmptyError)
        assert seeds[1].source.segment_label == "nothing"
        assert "segment-2" in str(seeds[1].error)


def test_memory_does_not_grow_with_the_dense_volume(scene, tmp_path):
    options = {"shape": (256, 192, 40), "spacing_mm": (1.0, 1.0, 3.0)}
    files = write_ct_series(tmp_path / "ct", scene, transfer_syntax=RLELossless, **options)
    geometry = ct_geometry(scene, **options)
    segments = lesion_segments(scene, geometry) * 2
    path = write_seg(tmp_path / "seg.dcm", files, segments, omit_empty_frames=False)
    dense_bytes = 6 * 256 * 192 * 40
    tracemalloc.start()
    seeds = read(path).seeds
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seeds) == 6
    assert peak < 0.5 * dense_bytes


# --- objects that cannot be used -----------------------------------------------------------


def remove(*keywords):
    def edit(dataset):
        for keyword in keywords:
            delattr(dataset, keyword)

    return edit


def claim_more_frames(dataset):
    dataset.NumberOfFrames = int(dataset.NumberOfFrames) + 1


def drop_a_position(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def name_an_unknown_segment(dataset):
    frame = dataset.PerFrameFunctionalGroupsSequence[2]
    frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 99


def describe_a_segment_twice(dataset):
    dataset.SegmentSequence[1].SegmentNumber = 1


def repeat_a_frame(dataset):
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[2].PlanePositionSequence = frames[1].PlanePositionSequence


def lay_frames_side_by_side(dataset):
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [index * 240, 0, 0]


def turn_a_frame(dataset):
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = orientation
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    item = pydicom.Dataset()
    item.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence = [item]


def flatten_the_plane(dataset):
    plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def empty_the_spacing(dataset):
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [0, 0]


def shorten_the_pixels(dataset):
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]


@pytest.mark.parametrize(
    "edit",
    [
        remove("PixelData"),
        remove("PerFrameFunctionalGroupsSequence"),
        remove("SharedFunctionalGroupsSequence"),
        remove("SegmentSequence"),
        remove("NumberOfFrames"),
        remove("Rows"),
        claim_more_frames,
        drop_a_position,
        name_an_unknown_segment,
        describe_a_segment_twice,
        repeat_a_frame,
        lay_frames_side_by_side,
        turn_a_frame,
        flatten_the_plane,
        empty_the_spacing,
        shorten_the_pixels,
    ],
    ids=lambda edit: edit.__name__,
)
def test_a_defective_object_is_refused_with_a_sentence(scene, study, edit):
    path = study.seg(lesion_segments(scene, ct_geometry(scene, **GRID)), edit=edit)
    with pytest.raises(SegmentationInvalidError, match=r"^SEG 2\.25\.\d+ .*\.$") as caught:
        read(path)
    assert "PHANTOM" not in str(caught.value)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_a_file_cut_anywhere_is_refused(scene, study, kind):
    path = study.seg(lesion_segments(scene, ct_geometry(scene, **GRID)), segmentation_type=kind)
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SegmentationInvalidError):
            read(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_gives_a_result_or_the_one_error(scene, study):
    path = study.seg(lesion_segments(scene, ct_geometry(scene, **GRID)))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    header = len(whole) - len(pydicom.dcmread(path).PixelData)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        damaged[random.integers(132, header, 12)] = random.integers(0, 256, 12)
        path.write_bytes(damaged.tobytes())
        try:
            read(path)
        except SegmentationInvalidError:
            refused += 1
    assert refused > 10


def test_other_objects_are_no_segmentation(study):
    with pytest.raises(SegmentationInvalidError, match="no segmentation"):
        read(study.files[0])
    text = study.folder / "text.dcm"
    text.write_text("not DICOM")
    with pytest.raises(SegmentationInvalidError, match=r"text\.dcm"):
        read(text)

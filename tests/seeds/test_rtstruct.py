"""Seeds from RT structure sets, against closed formulas, rasterised polygons and the scene."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from masks import itk_shapes, to_image
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.phantom import chest_scene
from oncofm.demo.rtstruct import RoiContours, lesion_contours, write_rtstruct
from oncofm.errors import ContourUnsupportedError, RTStructInvalidError, SegmentEmptyError
from oncofm.imaging.sources import FileSource
from oncofm.seeds import polygons
from oncofm.seeds.rtstruct import read_rtstruct
from oncofm.seeds.seed import RejectedSeed, Seed

GRID = {"shape": (40, 32, 50), "spacing_mm": (9.0, 9.0, 2.5)}


@dataclass(frozen=True)
class Study:
    folder: Path
    files: list[Path]

    def write(self, rois, **options) -> Path:
        return write_rtstruct(self.folder / "rt.dcm", self.files, rois, **options)

    def seeds(self, rois, edit=None, **options):
        return read(self.write(rois, edit=edit), **options).seeds

    def seed(self, *contours, geometric_type="CLOSED_PLANAR", edit=None, **options):
        """Seed of one ROI; a contour is (z, corners in the plane)."""
        points = [plane(z, corners) for z, corners in contours]
        rois = [RoiContours("one", points, geometric_type)]
        (seed,) = self.seeds(rois, edit, **options)
        return seed


@pytest.fixture(scope="module")
def scene():
    return chest_scene(centre_mm=(-14.0, -203.5, 871.25))


@pytest.fixture(scope="module")
def ct(scene, tmp_path_factory) -> list[Path]:
    return write_ct_series(tmp_path_factory.mktemp("ct"), scene, **GRID)


@pytest.fixture
def study(ct, tmp_path) -> Study:
    return Study(tmp_path, ct)


@pytest.fixture
def lesions(scene) -> list[RoiContours]:
    return lesion_contours(scene, ct_geometry(scene, **GRID))


def read(path: Path, **options):
    return read_rtstruct(FileSource(path), **options)


def plane(z: float, corners) -> np.ndarray:
    corners = np.asarray(corners, float)
    return np.column_stack([corners, np.full(len(corners), z)])


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def codes(seed) -> list[str]:
    return [notice.code for notice in seed.notices]


def star(random, n_corners=40, centre=(0.0, 0.0), size=12.0) -> np.ndarray:
    """A star-shaped polygon: concave, never crossing itself."""
    angles = np.sort(random.uniform(0, 2 * np.pi, n_corners))
    radii = size * random.uniform(0.4, 1, n_corners)
    return np.array(centre) + np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])


STEP_MM = 0.2


def rasterise(corners: np.ndarray, half_mm: float) -> np.ndarray:
    """Even-odd raster of a polygon, by counting crossings to the right of each cell's centre."""
    n_cells = round(2 * half_mm / STEP_MM)
    centres = (np.arange(n_cells) + 0.5) * STEP_MM - half_mm
    mask = np.zeros((n_cells, n_cells), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = (y0 > centres) != (y1 > centres)
        crossing = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0)
        mask[rows] ^= centres < crossing[:, None]
    return mask


def assert_agrees(seed, masks: dict[float, np.ndarray], spacing_mm: float, half_mm: float):
    """Compare with SimpleITK's statistics of rasterised planes."""
    assert isinstance(seed, Seed)
    assert seed.extent_mm is not None
    heights = sorted(masks)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, STEP_MM], [0, STEP_MM, 0], [spacing_mm, 0, 0]]
    affine[:3, 3] = [STEP_MM / 2 - half_mm, STEP_MM / 2 - half_mm, heights[0]]
    array = np.stack([masks[height] for height in heights])
    ((_, centroid_mm, volume_mm3),) = itk_shapes(to_image(array.astype(np.uint8), affine))
    assert seed.position_mm == pytest.approx(centroid_mm, abs=0.05)
    assert seed.volume_mm3 == pytest.approx(volume_mm3, rel=0.01)
    _, rows, columns = np.nonzero(array)
    extent_mm = [(np.ptp(columns) + 1) * STEP_MM, (np.ptp(rows) + 1) * STEP_MM]
    # A raster loses the tips that are narrower than a cell
    assert seed.extent_mm[:2] == pytest.approx(extent_mm, abs=1.2)
    assert seed.extent_mm[2] == pytest.approx(len(heights) * spacing_mm)


# --- the truth -------------------------------------------------------------------------------


def test_lesions_lie_where_the_scene_has_them(scene, study, lesions):
    found = read(study.write(lesions))
    for seed, lesion, roi in zip(found.seeds, scene.lesions, lesions, strict=True):
        assert isinstance(seed, Seed)
        assert seed.extent_mm is not None
        assert seed.position_mm == pytest.approx(lesion.centre_mm, abs=0.3)
        assert seed.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(lesion.radii_mm), rel=0.02)
        points_mm = np.concatenate(roi.contours)
        assert seed.extent_mm[:2] == pytest.approx(np.ptp(points_mm, axis=0)[:2], abs=1e-4)
        assert seed.extent_mm[2] == pytest.approx(len(roi.contours) * 2.5)
        assert seed.notices == ()


def test_names_and_uids(scene, study, lesions, ct):
    def describe(dataset):
        dataset.StructureSetROISequence[1].ROIDescription = "sous la carène"
        dataset.StructureSetROISequence[1].TrackingID = "T1"
        dataset.StructureSetROISequence[1].TrackingUID = "2.25.77"

    path = study.write(lesions, edit=describe)
    found, dataset = read(path), pydicom.dcmread(path)
    assert found.sop_instance_uid == dataset.SOPInstanceUID
    assert found.series_uid == dataset.SeriesInstanceUID
    assert found.study_uid == dataset.StudyInstanceUID
    assert [seed.lesion_id for seed in found.seeds] == ["roi-1", "roi-2", "roi-3"]
    source = found.seeds[1].source
    assert source.kind == "rtstruct"
    assert source.sop_instance_uid == dataset.SOPInstanceUID
    assert (source.segment_number, source.segment_label) == (2, scene.lesions[1].label)
    assert (source.segment_description, source.algorithm_type) == ("sous la carène", "MANUAL")
    assert (source.tracking_id, source.tracking_uid) == ("T1", "2.25.77")
    (group,) = found.groups
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct]
    assert group.reference.name == f"RTSTRUCT {dataset.SOPInstanceUID}"
    assert group.reference.frame_of_reference_uid == images[0].FrameOfReferenceUID
    assert group.reference.series_uids == {images[0].SeriesInstanceUID}
    assert group.reference.sop_instance_uids == {image.SOPInstanceUID for image in images}
    drawn_z = np.unique([c[0, 2] for roi in lesions for c in roi.contours]).round(3)
    assert group.reference.drawn_on_uids == {
        image.SOPInstanceUID
        for image in images
        if round(float(image.ImagePositionPatient[2]), 3) in drawn_z
    }


@pytest.mark.parametrize("random_seed", range(6))
def test_star_shaped_polygons_equal_their_raster(study, random_seed):
    random = np.random.default_rng(random_seed)
    stars = {3.0 * k: star(random) for k in range(4)}
    seed = study.seed(*stars.items())
    masks = {z: rasterise(corners, 15) for z, corners in stars.items()}
    assert_agrees(seed, masks, 3.0, 15)


@pytest.mark.parametrize("random_seed", range(4))
def test_polygons_that_cross_themselves_equal_their_even_odd_raster(study, random_seed):
    random = np.random.default_rng(random_seed)
    scribbles = {2.0 * k: random.uniform(-12, 12, (15, 2)) for k in range(3)}
    seed = study.seed(*scribbles.items())
    masks = {z: rasterise(corners, 15) for z, corners in scribbles.items()}
    assert_agrees(seed, masks, 2.0, 15)


@pytest.mark.parametrize("random_seed", range(4))
@pytest.mark.parametrize("geometric_type", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_polygons_that_overlap_in_part_equal_their_raster(study, random_seed, geometric_type):
    random = np.random.default_rng(random_seed)
    centres = [(-5.0, 0.0), (5.0, 2.0), (0.0, 6.0)]
    stars = [star(random, centre=centre) for centre in centres]
    seed = study.seed(*((0.0, s) for s in stars), geometric_type=geometric_type)
    combine = np.logical_or if geometric_type == "CLOSED_PLANAR" else np.logical_xor
    mask = combine.reduce([rasterise(corners, 20) for corners in stars])
    assert_agrees(seed, {0.0: mask}, 3.0, 20)


OUTER, HOLE, ISLAND = box(0, 0, 20, 10), box(2, 2, 8, 8), box(4, 4, 6, 6)
KEYHOLE = [*OUTER, OUTER[0], *HOLE, HOLE[0]]


@pytest.mark.parametrize(
    ("contours", "geometric_type", "area", "x"),
    [
        ([OUTER], "CLOSED_PLANAR", 200, 10),
        ([OUTER[::-1]], "CLOSED_PLANAR", 200, 10),
        ([[*OUTER, OUTER[0]]], "CLOSED_PLANAR", 200, 10),
        ([OUTER, HOLE], "CLOSED_PLANAR", 164, (2000 - 36 * 5) / 164),
        ([HOLE, OUTER], "CLOSEDPLANAR_XOR", 164, (2000 - 36 * 5) / 164),
        ([OUTER, HOLE[::-1]], "CLOSED_PLANAR", 164, (2000 - 36 * 5) / 164),
        ([ISLAND, OUTER, HOLE], "CLOSED_PLANAR", 168, (2000 - 32 * 5) / 168),
        ([KEYHOLE], "CLOSED_PLANAR", 164, (2000 - 36 * 5) / 164),
        ([[*OUTER, OUTER[0], *HOLE[::-1], HOLE[3]]], "CLOSED_PLANAR", 164, 1820 / 164),
        ([OUTER, OUTER], "CLOSED_PLANAR", 200, 10),
        ([OUTER, OUTER, HOLE, HOLE], "CLOSED_PLANAR", 164, 1820 / 164),
        ([HOLE, OUTER, box(1, -5, 9, 9)], "CLOSED_PLANAR", 204, (2000 - 36 * 5 + 200) / 204),
        ([OUTER, box(10, 5, 30, 15)], "CLOSED_PLANAR", 350, 15),
        ([OUTER, box(10, 5, 30, 15)], "CLOSEDPLANAR_XOR", 300, 15),
        ([OUTER, HOLE, box(7, 5, 12, 6)], "CLOSED_PLANAR", 160, 1780 / 160),
        ([OUTER, HOLE, box(15, 5, 25, 15)], "CLOSED_PLANAR", 239, 3382.5 / 239),
        ([box(0, 0, 5, 5), box(5, 0, 10, 5)], "CLOSED_PLANAR", 50, 5),
        ([[(0, 0), (10, 10), (10, 0), (0, 10)]], "CLOSED_PLANAR", 50, 5),
        ([[(0, 0), (20, 0), (20, 10), (40, 10), (20, 10), (0, 10)]], "CLOSED_PLANAR", 200, 10),
    ],
)
def test_closed_formulas(study, contours, geometric_type, area, x):
    seed = study.seed(
        *((z, corners) for z in (0, 4, 8) for corners in contours), geometric_type=geometric_type
    )
    assert seed.volume_mm3 == pytest.approx(area * 12)
    assert seed.position_mm[0] == pytest.approx(x)
    assert seed.position_mm[2] == pytest.approx(4)


def test_a_spike_has_no_extent(study):
    corners = [(0, 0), (20, 0), (20, 10), (70, 10), (20, 10), (0, 10)]
    assert study.seed((0.0, corners)).extent_mm[:2] == pytest.approx((20, 10))


def test_an_annulus_of_circles(study):
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    seed = study.seed((0.0, 20 * circle + 3), (0.0, 10 * circle + 3))
    assert seed.volume_mm3 == pytest.approx(np.pi * 300 * 3.0, rel=1e-3)
    assert seed.position_mm == pytest.approx((3, 3, 0), abs=1e-6)
    assert codes(seed) == ["slab_thickness_assumed", "seed_outside_segment"]


def test_where_coordinates_are_large_the_measures_stay_exact(study):
    seed = study.seed(*((-9000.5 + 2 * k, np.array(OUTER) + 70000) for k in range(3)))
    assert seed.position_mm == pytest.approx((70010, 70005, -8998.5), abs=1e-6)
    assert seed.volume_mm3 == pytest.approx(1200)


# --- planes and their depth ------------------------------------------------------------------


def test_uneven_planes_weigh_by_the_way_to_their_neighbours(study):
    """Depths 2, 2.5 and 3 mm: half the way on each side, half the median of 2.5 at the ends."""
    seed = study.seed((0.0, box(0, 0, 10, 10)), (2.0, box(0, 0, 10, 20)), (5.0, box(0, 0, 10, 10)))
    low, high = -1.25, 6.25
    slabs = [(low, 1.0, 100, 5), (1.0, 3.5, 200, 10), (3.5, high, 100, 5)]
    volumes = [(stop - start) * area for start, stop, area, _ in slabs]
    middles = [((start + stop) / 2, y) for start, stop, _, y in slabs]
    expected = np.average(middles, axis=0, weights=volumes)
    assert seed.volume_mm3 == pytest.approx(sum(volumes))
    assert (seed.position_mm[2], seed.position_mm[1]) == pytest.approx(tuple(expected))
    assert seed.extent_mm == pytest.approx((10, 20, 7.5))


@pytest.mark.parametrize(("factor", "n_parts"), [(1.45, 1), (1.55, 2), (2, 2)])
def test_a_gap_of_more_than_one_and_a_half_spacings_separates(study, factor, n_parts):
    heights = [0.0, 3.0, 6.0, 6 + 3 * factor, 9 + 3 * factor]
    contours = [(z, OUTER) for z in heights]
    seed = study.seed(*contours)
    assert ("multifocal_segment" in codes(seed)) == (n_parts == 2)
    depth_mm = 12 + 3 * factor if n_parts == 1 else 15
    assert seed.volume_mm3 == pytest.approx(200 * depth_mm)
    rois = [RoiContours("one", [plane(*contour) for contour in contours])]
    assert len(study.seeds(rois, per="component")) == n_parts


def test_contours_of_one_plane_may_differ_by_rounding(study):
    seed = study.seed((0.0, OUTER), (0.04, HOLE), (3.0, OUTER), (3.0, HOLE))
    assert seed.volume_mm3 == pytest.approx(164 * 2 * 2.98, rel=1e-6)


def slab_thickness(value):
    def edit(dataset):
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            contour.ContourSlabThickness = value

    return edit


def test_a_lone_plane_is_as_thick_as_its_slab_thickness_says(study):
    seed = study.seed((0.0, OUTER), edit=slab_thickness(1.25))
    assert seed.volume_mm3 == pytest.approx(250)
    assert seed.notices == ()


@pytest.mark.parametrize("value", [0, -2, 40, None])
def test_a_lone_plane_of_unknown_thickness_gets_a_notice(study, value):
    seed = study.seed((0.0, OUTER), edit=slab_thickness(value))
    assert seed.volume_mm3 == pytest.approx(600)
    assert codes(seed) == ["slab_thickness_assumed"]
    assert "3 mm are assumed" in seed.notices[0].message


def test_a_lone_plane_is_as_thick_as_the_spacing_of_its_neighbours(study):
    many = RoiContours("many", [plane(z, OUTER) for z in (0.0, 2.0, 4.0, 10.0)])
    lone = RoiContours("lone", [plane(6.0, OUTER)])
    _, seed = study.seeds([many, lone])
    assert seed.volume_mm3 == pytest.approx(400)
    assert seed.notices == ()


def test_lone_planes_far_apart_tell_no_spacing(study):
    seed = study.seed((0.0, OUTER), (20.0, OUTER))
    assert seed.volume_mm3 == pytest.approx(2 * 200 * 3)
    assert codes(seed) == ["slab_thickness_assumed", "multifocal_segment", "seed_outside_segment"]


# --- components and notices ------------------------------------------------------------------


def two_foci() -> list[np.ndarray]:
    large = [plane(z, box(0, 0, 9, 9)) for z in (0.0, 3.0, 6.0)]
    small = [plane(z, box(30, 0, 33, 9)) for z in (3.0, 6.0)]
    return [*small, *large]


def test_components_by_falling_volume(study):
    seeds = study.seeds([RoiContours("two", two_foci())], per="component")
    assert [seed.lesion_id for seed in seeds] == ["roi-1-component-1", "roi-1-component-2"]
    assert [seed.source.component for seed in seeds] == [1, 2]
    assert [seed.volume_mm3 for seed in seeds] == pytest.approx([81 * 9, 27 * 6])
    assert seeds[0].position_mm == pytest.approx((4.5, 4.5, 3))
    assert seeds[1].position_mm == pytest.approx((31.5, 4.5, 4.5))
    assert seeds[1].extent_mm == pytest.approx((3, 9, 6))
    assert [seed.notices for seed in seeds] == [(), ()]


def test_components_of_equal_size_stand_from_below(study):
    contours = [plane(z, np.array(box(0, 0, 5, 5)) + x) for z, x in [(9, 20), (0, 40), (3, 0)]]
    roi = RoiContours(
        "three", [*contours, *(contour + np.array([0, 0, 1]) for contour in contours)]
    )
    seeds = study.seeds([roi], per="component")
    assert [seed.position_mm[2] for seed in seeds] == pytest.approx([0.5, 3.5, 9.5])


def test_planes_connect_only_where_they_overlap(study):
    contours = [plane(0.0, box(0, 0, 5, 5)), plane(3.0, box(8, 0, 12, 5))]
    seeds = study.seeds([RoiContours("steps", contours)], per="component")
    assert [seed.volume_mm3 for seed in seeds] == pytest.approx([75, 60])
    joined = [*contours, plane(3.0, box(4, 0, 9, 5))]
    (seed,) = study.seeds([RoiContours("steps", joined)], per="component")
    assert seed.volume_mm3 == pytest.approx(75 + 40 * 3)


def test_thin_slanted_parts_hold_together(study):
    needle = [(0, 0), (40, 7), (40, 7.05), (0, 0.05)]
    seeds = study.seeds([RoiContours("needle", [plane(0.0, needle)])], per="component")
    assert len(seeds) == 1
    assert seeds[0].volume_mm3 == pytest.approx(40 * 0.05 * 3)


def test_a_multifocal_roi_is_said_to_be(study):
    (seed,) = study.seeds([RoiContours("two", two_foci())])
    assert codes(seed) == ["multifocal_segment", "seed_outside_segment"]
    assert "2 separate parts, the largest with 82%" in seed.notices[0].message


def test_small_parts_are_left_out_and_said_to_be(study):
    rois = [RoiContours("two", two_foci())]
    (seed,) = study.seeds(rois, per="component", min_volume_mm3=200)
    assert codes(seed) == ["small_components_left_out"]
    assert seed.notices[0].message.startswith("1 of 2 components")
    (whole,) = study.seeds(rois, min_volume_mm3=200)
    assert "multifocal_segment" not in codes(whole)
    for per in ("segment", "component"):
        (rejected,) = study.seeds(rois, per=per, min_volume_mm3=1e6)
        assert isinstance(rejected.error, SegmentEmptyError)
        assert "of at least 1e+06 mm3" in str(rejected.error)


@pytest.mark.parametrize(("length_mm", "exceeds"), [(50, False), (50.5, True)])
def test_a_lesion_longer_than_the_patch_is_said_to_be(study, length_mm, exceeds):
    seed = study.seed((0.0, box(0, 0, length_mm, 5)), (3.0, box(0, 0, length_mm, 5)))
    assert codes(seed) == ["lesion_exceeds_patch"] * exceeds


def test_overlapping_rois_do_not_disturb_each_other(study):
    rois = [RoiContours(str(k), [plane(z, OUTER) for z in (0, 3)]) for k in range(3)]
    rois[1] = RoiContours("1", [plane(z, HOLE) for z in (0, 3)])
    assert [seed.volume_mm3 for seed in study.seeds(rois)] == pytest.approx([1200, 216, 1200])


# --- points ----------------------------------------------------------------------------------


def test_a_point_is_a_seed(study):
    seed = study.seed((7.5, [(1.25, -3.5)]), geometric_type="POINT", min_volume_mm3=10)
    assert isinstance(seed, Seed)
    assert seed.position_mm == (1.25, -3.5, 7.5)
    assert (seed.extent_mm, seed.volume_mm3, seed.notices) == (None, None, ())


def test_several_points_are_no_lesion(study):
    seed = study.seed((7.5, [(1, 3)]), (9.0, [(1, 3)]), geometric_type="POINT")
    assert isinstance(seed.error, ContourUnsupportedError)
    assert "2 separate points" in str(seed.error)


def test_points_among_contours_are_left_out_and_said_to_be(study):
    def edit(dataset):
        dataset.ROIContourSequence[0].ContourSequence[1].ContourGeometricType = "POINT"

    contours = [(0.0, OUTER), (3.0, [(100, 100)]), (3.0, OUTER), (3.0, [(1, 2), (30, 4)])]
    seed = study.seed(*contours, edit=edit)
    assert codes(seed) == ["contours_left_out"]
    assert seed.notices[0].message.startswith("2 of 4 contours of roi-1")
    assert seed.volume_mm3 == pytest.approx(1200)


# --- ROIs that cannot be used ----------------------------------------------------------------


def rejected_alone(study, bad: RoiContours, edit=None) -> RejectedSeed:
    """An ROI between two good ones, which must not suffer."""
    good = RoiContours("good", [plane(0.0, OUTER), plane(3.0, OUTER)])
    first, seed, last = study.seeds([good, bad, good], edit)
    assert isinstance(first, Seed)
    assert isinstance(last, Seed)
    assert isinstance(seed, RejectedSeed)
    assert seed.lesion_id == "roi-2"
    assert seed.source.segment_label == bad.name
    assert str(seed.error).endswith(".")
    assert bad.name not in str(seed.error)
    return seed


@pytest.mark.parametrize("geometric_type", ["OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_open_contours_are_refused(study, geometric_type):
    seed = rejected_alone(study, RoiContours("Secret", [plane(0.0, OUTER)], geometric_type))
    assert isinstance(seed.error, ContourUnsupportedError)
    assert "1 of 1 contours of roi-2 are open" in str(seed.error)


def test_unknown_types_are_refused_without_repeating_them(study):
    seed = rejected_alone(study, RoiContours("Secret", [plane(0.0, OUTER)], "DOE_JOHN"))
    assert isinstance(seed.error, ContourUnsupportedError)
    assert "DOE" not in str(seed.error)


def test_contours_that_are_not_axial_are_refused(study):
    contour = plane(0.0, OUTER)
    contour[0, 2] = 0.2
    seed = rejected_alone(study, RoiContours("Secret", [contour, plane(3.0, OUTER)]))
    assert isinstance(seed.error, ContourUnsupportedError)
    assert "1 of 2 contours of roi-2 are not axial" in str(seed.error)


@pytest.mark.parametrize(
    "contours",
    [
        [],
        [plane(0.0, [(0, 0), (5, 5)])],
        [plane(0.0, [(0, 0), (5, 5), (10, 10)])],
        [plane(0.0, [(0, 0), (5, 0), (10, 0)])],
        [plane(0.0, [(1, 1)] * 4)],
    ],
    ids=["none", "two points", "line", "level line", "one place"],
)
def test_an_roi_that_encloses_nothing_is_empty(study, contours):
    seed = rejected_alone(study, RoiContours("Secret", contours))
    assert isinstance(seed.error, SegmentEmptyError)
    assert "roi-2 encloses no volume;" in str(seed.error)


def contour_data(text):
    def edit(dataset):
        contour = dataset.ROIContourSequence[1].ContourSequence[0]
        contour["ContourData"]._value = text

    return edit


@pytest.mark.parametrize(
    "text",
    [
        "1\\2\\3\\4\\5\\3\\7\\8",
        "1\\2\\3\\4\\5\\3",
        "nan\\2\\3\\4\\5\\3\\7\\8\\3\\1\\9\\3",
        "inf\\2\\3\\4\\5\\3\\7\\8\\3\\1\\9\\3",
        "1e30\\2\\3\\4\\5\\3\\7\\8\\3\\1\\9\\3",
        "x\\2\\3\\4\\5\\3\\7\\8\\3\\1\\9\\3",
        "1\\\\3\\4\\5\\3\\7\\8\\3\\1\\9\\3",
    ],
    ids=["no triples", "too few", "nan", "inf", "huge", "text", "gap"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_coordinates_that_are_none_are_refused(study, text):
    from pydicom import config

    with config.disable_value_validation():
        seed = rejected_alone(
            study, RoiContours("Secret", [plane(0.0, OUTER)]), edit=contour_data(text)
        )
    assert isinstance(seed.error, RTStructInvalidError)


def test_contours_beyond_all_measure_are_refused(study, monkeypatch):
    random = np.random.default_rng(0)
    monkeypatch.setattr(polygons, "_MOST_PIECES", 1000)
    scribble = RoiContours("Secret", [plane(0.0, random.uniform(0, 50, (80, 2)))])
    seed = rejected_alone(study, scribble)
    assert isinstance(seed.error, ContourUnsupportedError)
    assert "too intricate" in str(seed.error)


def test_too_many_overlapping_contours_are_refused(study, monkeypatch):
    monkeypatch.setattr(polygons, "_MOST_CELLS", 100)
    pile = [plane(0.0, np.array(OUTER) + 0.5 * k) for k in range(10)]
    seed = rejected_alone(study, RoiContours("Secret", pile))
    assert isinstance(seed.error, ContourUnsupportedError)
    assert "10 overlapping polygons" in str(seed.error)


# --- references ------------------------------------------------------------------------------


def refer_to_a_second_series(dataset):
    """A PET in the same frame of reference; the last ROI was drawn on it."""
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    image = Dataset()
    image.ReferencedSOPClassUID = CTImageStorage
    image.ReferencedSOPInstanceUID = "2.25.5001"
    series = Dataset()
    series.SeriesInstanceUID = "2.25.5000"
    series.ContourImageSequence = [image]
    study.RTReferencedSeriesSequence.append(series)
    for contour in dataset.ROIContourSequence[2].ContourSequence:
        contour.ContourImageSequence = [image]


def test_rois_drawn_on_different_series_are_groups(study, lesions):
    found = read(study.write(lesions, edit=refer_to_a_second_series))
    assert [len(group.seeds) for group in found.groups] == [2, 1]
    first, second = (group.reference for group in found.groups)
    assert first.series_uids == second.series_uids
    assert "2.25.5000" in second.series_uids
    assert second.drawn_on_uids == {"2.25.5001"}
    assert "2.25.5001" not in first.drawn_on_uids


def test_rois_of_different_frames_of_reference_are_groups(study, lesions):
    def edit(dataset):
        frame = Dataset()
        frame.FrameOfReferenceUID = "2.25.9"
        dataset.ReferencedFrameOfReferenceSequence.append(frame)
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "2.25.9"

    found = read(study.write(lesions, edit=edit))
    assert [[seed.lesion_id for seed in group.seeds] for group in found.groups] == [
        ["roi-1"],
        ["roi-2", "roi-3"],
    ]
    assert found.groups[0].reference.frame_of_reference_uid == "2.25.9"
    assert found.groups[0].reference.series_uids == frozenset()


def test_without_references_the_only_frame_of_reference_counts(study, lesions):
    def edit(dataset):
        for item in dataset.StructureSetROISequence:
            item.ReferencedFrameOfReferenceUID = ""
        for item in dataset.ROIContourSequence:
            for contour in item.ContourSequence:
                del contour.ContourImageSequence

    path = study.write(lesions, edit=edit)
    (group,) = read(path).groups
    dataset = pydicom.dcmread(path)
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    assert group.reference.frame_of_reference_uid == frame.FrameOfReferenceUID
    assert group.reference.drawn_on_uids == frozenset()
    del dataset.ReferencedFrameOfReferenceSequence
    dataset.save_as(path)
    (group,) = read(path).groups
    assert group.reference.frame_of_reference_uid == dataset.FrameOfReferenceUID
    assert group.reference.series_uids == frozenset()


# --- encodings -------------------------------------------------------------------------------


def test_implicit_vr_and_undefined_lengths_read_the_same(study, lesions):
    path = study.write(lesions)
    expected = read(path)
    dataset = pydicom.dcmread(path)
    for item in dataset.ROIContourSequence:
        item["ContourSequence"].is_undefined_length = True
        for contour in item.ContourSequence:
            contour.is_undefined_length_sequence_item = True
    dataset["ROIContourSequence"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    assert read(path) == expected


@pytest.mark.filterwarnings("ignore:The value for the data element:UserWarning")
def test_a_contour_too_long_for_a_short_length(study):
    """More than 65534 bytes in explicit VR are written as UN (PS3.5 6.2.2)."""
    angles = np.linspace(0, 2 * np.pi, 9000, endpoint=False)
    circle = 20 * np.column_stack([np.cos(angles), np.sin(angles)]).round(4)
    seed = study.seed((0.0, circle), (3.0, circle))
    assert seed.volume_mm3 == pytest.approx(np.pi * 400 * 6, rel=1e-4)


# --- objects that cannot be used -------------------------------------------------------------


def remove(keyword):
    def edit(dataset):
        delattr(dataset, keyword)

    edit.__name__ = keyword
    return edit


def describe_an_roi_twice(dataset):
    dataset.StructureSetROISequence[1].ROINumber = 1


def draw_an_unknown_roi(dataset):
    dataset.ROIContourSequence[1].ReferencedROINumber = 99


def forget_a_number(dataset):
    del dataset.StructureSetROISequence[1].ROINumber


def forget_a_reference(dataset):
    del dataset.ROIContourSequence[1].ReferencedROINumber


def forget_a_series(dataset):
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    del study.RTReferencedSeriesSequence[0].SeriesInstanceUID


@pytest.mark.parametrize(
    "edit",
    [
        remove("StructureSetROISequence"),
        remove("ROIContourSequence"),
        describe_an_roi_twice,
        draw_an_unknown_roi,
        forget_a_number,
        forget_a_reference,
        forget_a_series,
    ],
    ids=lambda edit: edit.__name__,
)
def test_a_defective_object_is_refused_with_a_sentence(study, lesions, edit):
    path = study.write(lesions, edit=edit)
    with pytest.raises(RTStructInvalidError, match=r"^RTSTRUCT 2\.25\.\d+ .*\.$") as caught:
        read(path)
    assert "PHANTOM" not in str(caught.value)


@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_file_cut_anywhere_is_refused(study, lesions, undefined_length):
    def edit(dataset):
        del dataset.RTROIObservationsSequence  # what stands behind the contours is not needed
        dataset["ROIContourSequence"].is_undefined_length = undefined_length

    path = study.write(lesions, edit=edit)
    whole = path.read_bytes()
    assert read(path).seeds
    for share in (0.0, 0.001, 0.02, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.99, 0.9999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(RTStructInvalidError):
            read(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_gives_a_result_or_the_one_error(study, lesions):
    path = study.write(lesions)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    refused = rejected = 0
    for _ in range(80):
        damaged = whole.copy()
        damaged[random.integers(132, len(whole), 12)] = random.integers(0, 256, 12)
        damaged[random.integers(132, 6000, 3)] = random.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            rejected += any(isinstance(seed, RejectedSeed) for seed in read(path).seeds)
        except RTStructInvalidError:
            refused += 1
    assert rejected > 10
    assert refused > 3


def test_other_objects_are_no_structure_set(study):
    with pytest.raises(RTStructInvalidError, match="no RT structure set"):
        read(study.files[0])
    text = study.folder / "text.dcm"
    text.write_text("not DICOM")
    with pytest.raises(RTStructInvalidError, match=r"text\.dcm"):
        read(text)

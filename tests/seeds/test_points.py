"""JSON point files: every point that somebody placed is a seed in LPS mm, or a sentence."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oncofm.demo.markups import write_centroid, write_centroids, write_markups
from oncofm.errors import InputNotFoundError, PointFileInvalidError, SeedInvalidError
from oncofm.seeds import points
from oncofm.seeds.points import is_point_file, read_points
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource

# A file as 3D Slicer 5 saves a point list: the first of these points lies right, anterior and
# superior of the origin (RAS 21.5, 40.25, 12), the second is hidden.
SLICER_FILE = """{
    "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "locked": false,
            "fixedNumberOfControlPoints": false,
            "labelFormat": "%N-%d",
            "lastUsedControlPointNumber": 2,
            "controlPoints": [
                {
                    "id": "1",
                    "label": "F-1",
                    "description": "",
                    "associatedNodeID": "vtkMRMLScalarVolumeNode1",
                    "position": [-21.5, -40.25, 12.0],
                    "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
                    "selected": true,
                    "locked": false,
                    "visibility": true,
                    "positionStatus": "defined"
                },
                {
                    "id": "2",
                    "label": "F-2",
                    "description": "upper lobe",
                    "associatedNodeID": "",
                    "position": [30.0, 5.5, -612.125],
                    "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
                    "selected": true,
                    "locked": false,
                    "visibility": false,
                    "positionStatus": "defined"
                }
            ],
            "measurements": [
                {"name": "volume", "enabled": false, "units": "cm3", "printFormat": "%-#4.4g%s"}
            ],
            "display": {
                "visibility": true,
                "opacity": 1.0,
                "color": [0.4, 1.0, 1.0],
                "glyphType": "Sphere3D",
                "snapMode": "toVisibleSurface"
            }
        }
    ]
}
"""


def save(tmp_path, document, name="points.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def read(tmp_path, document):
    return read_points(save(tmp_path, document))


def read_markups(tmp_path, *markups, version="1.0.3"):
    schema = f"https://example.org/Schema/markups-schema-v{version}.json#"
    return read(tmp_path, {"@schema": schema, "markups": list(markups)})


def fiducial(*positions, **fields):
    points = [{"position": position} for position in positions]
    return {"type": "Fiducial", "controlPoints": points, **fields}


def roi(**fields):
    return {"type": "ROI", "center": [1, 2, 3], "size": [10, 20, 30], **fields}


def fault(seed) -> str:
    assert isinstance(seed, RejectedSeed)
    assert isinstance(seed.error, SeedInvalidError)
    return str(seed.error)


# --- 3D Slicer ----------------------------------------------------------------------------


def test_file_of_slicer(tmp_path):
    path = save(tmp_path, SLICER_FILE, "anything.txt")
    first, second = read_points(path)
    assert first == Seed(
        "point-1",
        (-21.5, -40.25, 12.0),
        SeedSource("markup", segment_number=1, segment_label="F-1"),
    )
    assert second.position_mm == (30.0, 5.5, -612.125)
    assert second.source.segment_description == "upper lobe"
    (notice,) = second.notices
    assert notice.code == "hidden_point"
    assert notice.message == (
        "Point 2 (control point 2 of markup 1) is hidden in 3D Slicer; it is encoded all the same."
    )
    assert is_point_file(path)


@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "1.0.2", "1.0.3"])
@pytest.mark.parametrize(
    ("system", "position_mm"),
    [("LPS", (1, 2, 3)), (1, (1, 2, 3)), ("RAS", (-1, -2, 3)), (0, (-1, -2, 3))],
)
def test_coordinate_systems(tmp_path, version, system, position_mm):
    markup = fiducial([1, 2, 3], coordinateSystem=system)
    (seed,) = read_markups(tmp_path, markup, version=version)
    assert seed.position_mm == position_mm


def test_lps_is_the_default_and_zero_stays_plain(tmp_path):
    default, ras = read_markups(
        tmp_path, fiducial([1, 2, 3]), fiducial([0, 0.0, 1], coordinateSystem="RAS")
    )
    assert default.position_mm == (1.0, 2.0, 3.0)
    assert str(ras.position_mm) == "(0.0, 0.0, 1.0)"


@pytest.mark.parametrize("system", ["lps", "IJK", 2, True, 1.0, None, ["LPS"], {}])
def test_other_coordinate_systems(tmp_path, system):
    (seed,) = read_markups(tmp_path, fiducial([1, 2, 3], coordinateSystem=system))
    assert fault(seed) == (
        f"Point 1 of {tmp_path / 'points.json'} (control point 1 of markup 1) cannot be used: its "
        "coordinateSystem is neither LPS nor RAS; export it as LPS."
    )


@pytest.mark.parametrize(
    ("units", "position_mm"),
    [
        ("mm", (1000.0, -2.0, 3.5)),
        (["mm", "UCUM", "millimeter"], (1000.0, -2.0, 3.5)),
        ("um", (1.0, -0.002, 0.0035)),
        (["um", "UCUM", "micrometer"], (1.0, -0.002, 0.0035)),
    ],
)
def test_units(tmp_path, units, position_mm):
    (seed,) = read_markups(tmp_path, fiducial([1000, -2, 3.5], coordinateUnits=units))
    assert seed.position_mm == pytest.approx(position_mm, abs=1e-12)


@pytest.mark.parametrize("units", ["cm", "", None, 1, ["mm"], ["mm", "SI", "x"], [[], "UCUM", ""]])
def test_other_units(tmp_path, units):
    (seed,) = read_markups(tmp_path, fiducial([1, 2, 3], coordinateUnits=units))
    assert "its coordinateUnits are neither mm nor um; export it in mm." in fault(seed)


def test_every_point_of_every_markup_in_order(tmp_path):
    seeds = read_markups(
        tmp_path,
        fiducial([1, 0, 0], [2, 0, 0], name="A"),
        {"type": "Line", "controlPoints": [{"position": [9, 9, 9]}]},
        fiducial(),
        fiducial([3, 0, 0], name="B", display={"visibility": False}),
    )
    assert [seed.lesion_id for seed in seeds] == ["point-1", "point-2", "point-3", "point-4"]
    assert [seed.source.segment_number for seed in seeds] == [1, 2, 3, 4]
    assert [seed.source.segment_description for seed in seeds] == ["A", "A", "", "B"]
    assert isinstance(seeds[2], RejectedSeed)
    assert seeds[3].position_mm == (3.0, 0.0, 0.0)
    assert [notice.code for notice in seeds[3].notices] == ["hidden_point"]


@pytest.mark.parametrize("status", ["undefined", "preview", "missing"])
def test_points_that_were_never_placed(tmp_path, status):
    markup = fiducial([1, 2, 3], [4, 5, 6])
    markup["controlPoints"][0].update(positionStatus=status, label="secret name")
    first, second = read_markups(tmp_path, markup)
    assert f"its position is {status}, not defined; place the point" in fault(first)
    assert "secret" not in fault(first)
    assert first.source.segment_label == "secret name"
    assert second.position_mm == (4, 5, 6)


@pytest.mark.parametrize("status", ["", "Defined", None, 3, [], {}])
def test_unknown_position_status(tmp_path, status):
    markup = fiducial([1, 2, 3])
    markup["controlPoints"][0]["positionStatus"] = status
    (seed,) = read_markups(tmp_path, markup)
    assert "its positionStatus is not known; export the markups again." in fault(seed)


@pytest.mark.parametrize(
    "position",
    [
        *(None, {}, "1,2,3", [], [1, 2], [1, 2, 3, 4], ["1", "2", "3"], [1, 2, True]),
        *([1, 2, None], [1, 2, math.nan], [1, math.inf, 3], [10**400, 2, 3], [[1], 2, 3]),
    ],
)
def test_bad_positions(tmp_path, position):
    bad, good = read_markups(tmp_path, fiducial(position, [1, 2, 3]))
    assert "its position is not a list of 3 finite numbers; correct it." in fault(bad)
    assert good.position_mm == (1, 2, 3)


@pytest.mark.parametrize("kind", ["Line", "Angle", "Curve", "ClosedCurve", "Plane"])
def test_markups_that_are_no_points(tmp_path, kind):
    _, seed = read_markups(tmp_path, fiducial([0, 0, 0]), {"type": kind, "name": "secret"})
    assert fault(seed) == (
        f"Point 2 of {tmp_path / 'points.json'} (markup 2) cannot be used: it is of type {kind}, "
        "which does not mark one lesion; place a Fiducial point in the lesion's centre or draw an "
        "ROI around it."
    )


@pytest.mark.parametrize("markup", [{}, {"type": "secret"}, {"type": ["Line"]}, {"type": None}])
def test_unknown_markup_type(tmp_path, markup):
    (seed,) = read_markups(tmp_path, markup)
    assert "it is of a type that is not known here, which does not mark one" in fault(seed)
    assert "secret" not in fault(seed)


def test_garbled_markups(tmp_path):
    seeds = read_markups(tmp_path, 7, {"type": "Fiducial", "controlPoints": {}}, fiducial())
    assert "(markup 1) cannot be used: it is no JSON object;" in fault(seeds[0])
    assert "(markup 2) cannot be used: its controlPoints are no list;" in fault(seeds[1])
    (seed,) = read_markups(tmp_path, {"type": "Fiducial", "controlPoints": [None]})
    assert "(control point 1 of markup 1) cannot be used: it is no JSON object;" in fault(seed)


# --- ROI ----------------------------------------------------------------------------------


def test_roi(tmp_path):
    (seed,) = read_markups(
        tmp_path,
        roi(
            name="R",
            roiType="Box",
            coordinateSystem="RAS",
            orientation=[1, 0, 0, 0, 1, 0, 0, 0, 1],
            controlPoints=[{"label": "R-1", "position": [1, 2, 3]}],
            display={"visibility": False},
        ),
    )
    assert seed.lesion_id == "point-1"
    assert seed.position_mm == (-1, -2, 3)
    assert seed.extent_mm == (10, 20, 30)
    assert seed.source == SeedSource("markup", segment_number=1, segment_label="R")
    assert [notice.code for notice in seed.notices] == ["hidden_point"]


def test_rotated_roi_has_the_extent_of_its_bounding_box(tmp_path):
    # 30 degrees about z: the corners of a 10 x 20 mm rectangle span 10 cos + 20 sin in x.
    cosine, sine = math.cos(math.pi / 6), math.sin(math.pi / 6)
    turned = [cosine, -sine, 0, sine, cosine, 0, 0, 0, 1]
    # x axis of the box along z, y along x, z along y: columns (0,0,1), (1,0,0), (0,1,0).
    swapped = [0, 1, 0, 0, 0, 1, 1, 0, 0]
    first, second, third = read_markups(
        tmp_path,
        roi(orientation=turned),
        roi(orientation=swapped),
        roi(orientation=turned, coordinateSystem="RAS", coordinateUnits="um"),
    )
    expected = (10 * cosine + 20 * sine, 10 * sine + 20 * cosine, 30)
    assert first.extent_mm == pytest.approx(expected)
    assert second.extent_mm == pytest.approx((20, 30, 10))
    assert third.extent_mm == pytest.approx([value / 1000 for value in expected])
    assert third.position_mm == pytest.approx((-0.001, -0.002, 0.003))


def test_roi_without_size_or_center(tmp_path):
    handle = {"position": [5.9, -12.3, -10.2]}
    sizeless, centerless, unknown = read_markups(
        tmp_path,
        {"type": "ROI", "center": [1, 2, 3]},
        {"type": "ROI", "controlPoints": [handle], "size": [1, 2, 3]},
        {"type": "ROI", "roiType": "BoundingBox", "controlPoints": [handle], "size": [1, 2, 3]},
    )
    assert sizeless.extent_mm is None
    assert centerless.position_mm == (5.9, -12.3, -10.2)
    assert "its center is not a list of 3 finite numbers" in fault(unknown)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"center": None}, "its center is not a list of 3 finite numbers; correct it."),
        ({"size": [1, 2]}, "its size is not a list of 3 finite numbers; correct it."),
        ({"size": [1, 0, 2]}, "its size is not above 0 on all axes; draw the ROI again."),
        ({"orientation": [1] * 9}, "its orientation is no rotation; draw the ROI again."),
        ({"orientation": [1, 0]}, "its orientation is not a list of 9 finite numbers;"),
        ({"controlPoints": [3]}, "its controlPoints are no list of objects; export"),
        ({"controlPoints": {}}, "its controlPoints are no list of objects; export"),
        ({"controlPoints": [{"positionStatus": "undefined"}]}, "its position is undefined, not"),
        ({"coordinateSystem": "?"}, "its coordinateSystem is neither LPS nor RAS"),
    ],
)
def test_bad_rois(tmp_path, fields, sentence):
    (seed,) = read_markups(tmp_path, roi(**fields))
    assert sentence in fault(seed)


# --- MHub ---------------------------------------------------------------------------------


def test_single_point(tmp_path):
    document = {"coordX": -21.5, "coordY": 3, "coordZ": 1e2, "Mhub ROI": "LUNG,LEFT"}
    path = save(tmp_path, "\ufeff" + json.dumps(document))
    (seed,) = read_points(path)
    assert seed == Seed(
        "point-1",
        (-21.5, 3.0, 100.0),
        SeedSource("json", segment_number=1, segment_label="LUNG,LEFT"),
    )
    assert is_point_file(path)


def test_list(tmp_path):
    seeds = read(
        tmp_path,
        [
            {"Mhub ROI": "NODULE,LIVER", "coordX": 1, "coordY": 2, "coordZ": 3},
            {"Mhub ROI": None, "coordX": 1, "coordY": "2", "coordZ": True},
            "no object",
            {"Mhub ROI": 7, "coordX": 4, "coordY": 5, "coordZ": 6},
            {"Mhub ROI": ["a", 1], "coordX": 4, "coordY": 5},
        ],
    )
    assert [seed.source.segment_label for seed in seeds] == [
        *("NODULE,LIVER", "", "", "7", '["a", 1]')
    ]
    assert seeds[0].position_mm == (1, 2, 3)
    assert fault(seeds[1]) == (
        f"Point 2 of {tmp_path / 'points.json'} (element 2 of the list) cannot be used: coordY, "
        "coordZ are not finite numbers (LPS millimetres)."
    )
    assert "(element 3 of the list) cannot be used: it is no JSON object; correct" in fault(
        seeds[2]
    )
    assert seeds[3].position_mm == (4, 5, 6)
    assert "coordZ is not a finite number (LPS millimetres)." in fault(seeds[4])


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_are_none(tmp_path, literal):
    (seed,) = read(tmp_path, f'{{"coordX": 1, "coordY": {literal}, "coordZ": 3}}')
    assert "(the only one) cannot be used: coordY is not a finite number" in fault(seed)


def test_labels_can_be_written_as_utf8(tmp_path):
    (seed,) = read(tmp_path, '{"coordX": 1, "coordY": 2, "coordZ": 3, "Mhub ROI": "\\ud800x"}')
    assert seed.source.segment_label == "?x"


# --- the file as a whole ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no JSON document (line 1, column 1); export it again."),
        (b"{\n", "is no JSON document (line 2"),
        (b'{"coordX": 1}\n{"coordX": 2}\n', "is no JSON document (line 2, column 1)"),
        (b"[" * 100_000, "is nested too deeply to be a point file; export the points again."),
        (b'{"coordX": ' + b"9" * 5000 + b"}", "has a number with too many digits; export it"),
        (b'{"coordX": "\xff"}', "is not UTF-8 (byte 12); save it as UTF-8."),
        (b"[]", "holds no point; place at least one and save it again."),
        (b'{"@schema": "markups-schema-v1.0.3", "markups": []}', "holds no point; place"),
        (b"3", "holds neither 3D Slicer markups nor objects with coordX, coordY, coordZ; export"),
        (b"{}", "holds neither"),
        (b"[1, {}]", "holds neither"),
        (b'{"markups": []}', "holds neither"),
        (b'{"@schema": 3, "markups": []}', "holds neither"),
        (b'{"@schema": "markups-schema-v1.0.3", "markups": {}}', "holds neither"),
    ],
)
def test_other_files(tmp_path, content, sentence):
    path = tmp_path / "points.json"
    path.write_bytes(content)
    with pytest.raises(PointFileInvalidError) as caught:
        read_points(path)
    assert str(caught.value).startswith(f"{path} {sentence}")
    assert is_point_file(path) == ("holds no point" in sentence)


def test_labels_nested_too_deeply(tmp_path, monkeypatch):
    path = save(tmp_path, {"coordX": 1, "coordY": 2, "coordZ": 3, "Mhub ROI": [1]})

    def dumps(*_, **__):
        raise RecursionError

    monkeypatch.setattr("oncofm.seeds.point_draft.json.dumps", dumps)
    with pytest.raises(PointFileInvalidError, match="nested too deeply"):
        read_points(path)


def test_absent_file_and_folder(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputNotFoundError, match="does not exist"):
            read_points(path)
        assert not is_point_file(path)


def test_unreadable_file(tmp_path):
    path = tmp_path / ("x" * 300)
    with pytest.raises(PointFileInvalidError, match=r"cannot be read \(File name too long\); mend"):
        read_points(path)
    assert not is_point_file(path)


def test_huge_file(tmp_path, monkeypatch):
    monkeypatch.setattr(points, "_MAX_BYTES", 2**20)
    path = save(tmp_path, "[" + " " * 2**20 + "]")
    with pytest.raises(PointFileInvalidError, match="larger than 1 MiB, which no point file is"):
        read_points(path)
    assert not is_point_file(path)


@pytest.mark.parametrize("column", ["image_path", "series_uid", "lesion_id"])
def test_rows_of_a_seed_table_are_no_point_file(tmp_path, column):
    row = {"coordX": 1, "coordY": 2, "coordZ": 3}
    assert is_point_file(save(tmp_path, row))
    assert not is_point_file(save(tmp_path, {**row, column: "a"}))
    assert is_point_file(save(tmp_path, [{**row, column: "a"}]))
    assert not is_point_file(save(tmp_path, f"{json.dumps(row)}\n{json.dumps(row)}\n"))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def objects(**known):
    """JSON objects that have the given keys, mostly with the given values."""
    fields = {key: st.one_of(values, JSON) for key, values in known.items()}
    return st.one_of(st.fixed_dictionaries({}, optional=fields), JSON)


NUMBERS = st.lists(st.floats() | st.integers(), max_size=9)
POSITION = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)
CONTROL_POINTS = st.lists(
    objects(
        position=POSITION,
        positionStatus=st.sampled_from(["defined", "missing"]),
        label=st.text(max_size=3),
        visibility=st.booleans(),
    ),
    max_size=3,
)
MARKUP = objects(
    type=st.sampled_from(["Fiducial", "ROI", "Line"]),
    coordinateSystem=st.sampled_from(["LPS", "RAS", 0, 1]),
    coordinateUnits=st.sampled_from(["mm", "um", ["mm", "UCUM", "millimeter"]]),
    controlPoints=CONTROL_POINTS,
    center=POSITION,
    size=NUMBERS,
    orientation=NUMBERS,
    display=objects(visibility=st.booleans()),
)
DOCUMENTS = st.one_of(
    st.fixed_dictionaries(
        {"@schema": st.just("markups-schema-v1.0.3"), "markups": st.lists(MARKUP, max_size=3)}
    ),
    st.lists(objects(coordX=st.floats(), coordY=st.integers(), coordZ=st.floats()), max_size=3),
    JSON,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(DOCUMENTS)
def test_hostile_json(tmp_path, document):
    path = save(tmp_path, document)
    try:
        seeds = read_points(path)
    except PointFileInvalidError:
        return
    assert [seed.lesion_id for seed in seeds] == [f"point-{n + 1}" for n in range(len(seeds))]
    for seed in seeds:
        if isinstance(seed, Seed):
            assert all(math.isfinite(value) for value in seed.position_mm)
            assert seed.extent_mm is None or all(0 < value < math.inf for value in seed.extent_mm)
        else:
            fault(seed)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=60))
def test_hostile_bytes(tmp_path, content):
    path = tmp_path / "points.json"
    path.write_bytes(content)
    is_point_file(path)
    with pytest.raises(PointFileInvalidError):
        read_points(path)


# --- the phantom's own files --------------------------------------------------------------


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("RAS", -1)])
def test_written_markups(tmp_path, system, sign):
    path = write_markups(tmp_path / "F.mrk.json", [(1, 2, 3), (-4, 5, 6)], coordinate_system=system)
    document = json.loads(path.read_text())
    (markup,) = document["markups"]
    assert document["@schema"].endswith("/Schema/markups-schema-v1.0.3.json#")
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", system)
    assert [point["label"] for point in markup["controlPoints"]] == ["F-1", "F-2"]
    assert markup["controlPoints"][0]["position"] == [sign * 1, sign * 2, 3]
    assert markup["controlPoints"][0]["orientation"] == [-sign, 0, 0, 0, -sign, 0, 0, 0, 1]
    assert [seed.position_mm for seed in read_points(path)] == [(1, 2, 3), (-4, 5, 6)]


def test_written_labels(tmp_path):
    path = write_markups(tmp_path / "F.mrk.json", [(1, 2, 3)], labels=["T1"])
    assert [seed.source.segment_label for seed in read_points(path)] == ["T1"]


def test_written_centroids(tmp_path):
    path = write_centroids(tmp_path / "list.json", [(1, 2, 3), (4, 5, 6)], ["a,b", "c"])
    assert json.loads(path.read_text()) == [
        {"Mhub ROI": "a,b", "coordX": 1, "coordY": 2, "coordZ": 3},
        {"Mhub ROI": "c", "coordX": 4, "coordY": 5, "coordZ": 6},
    ]
    assert [seed.position_mm for seed in read_points(path)] == [(1, 2, 3), (4, 5, 6)]
    path = write_centroid(tmp_path / "one.json", (7, 8, 9))
    assert json.loads(path.read_text()) == {"coordX": 7, "coordY": 8, "coordZ": 9}
    assert [seed.position_mm for seed in read_points(path)] == [(7, 8, 9)]

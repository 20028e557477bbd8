"""Phantom lesions as points: 3D Slicer markups and MHub's coordinates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Point = Sequence[float]

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)

_SIGNS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}
"""What makes LPS coordinates those of the system."""

_RAS_AXES = {"LPS": (-1.0, -1.0, 1.0), "RAS": (1.0, 1.0, 1.0)}


def write_markups(
    path: Path,
    points_mm: Sequence[Point],
    *,
    coordinate_system: str = "LPS",
    labels: Sequence[str] | None = None,
) -> Path:
    """Write points as 3D Slicer does: one Fiducial list, schema 1.0.3.

    Parameters
    ----------
    path : pathlib.Path
        File to write, ``.mrk.json`` by custom.
    points_mm : sequence of (x, y, z)
        LPS mm, whatever `coordinate_system` is.
    coordinate_system : {"LPS", "RAS"}
        In which the file gives them.
    labels : sequence of str or None
        One per point; None calls them ``F-1``, ``F-2`` ...

    Returns
    -------
    pathlib.Path
        The file.
    """
    signs = _SIGNS[coordinate_system]
    if labels is None:
        labels = [f"F-{n}" for n in range(1, len(points_mm) + 1)]
    # A point's own axes are those of RAS, given in the file's coordinate system.
    x_sign, y_sign, z_sign = _RAS_AXES[coordinate_system]
    orientation = [x_sign, 0.0, 0.0, 0.0, y_sign, 0.0, 0.0, 0.0, z_sign]
    control_points = [
        {
            "id": str(n),
            "label": label,
            "description": "",
            "associatedNodeID": "",
            "position": [sign * float(value) for sign, value in zip(signs, point, strict=True)],
            "orientation": orientation,
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for n, (point, label) in enumerate(zip(points_mm, labels, strict=True), start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": coordinate_system,
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(control_points),
        "controlPoints": control_points,
        "measurements": [],
        "display": {"visibility": True, "opacity": 1.0, "pointLabelsVisibility": True},
    }
    return _write(path, {"@schema": _SCHEMA, "markups": [markup]})


def write_centroids(path: Path, points_mm: Sequence[Point], rois: Sequence[str]) -> Path:
    """Write MHub's list of coordinates.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    points_mm : sequence of (x, y, z)
        LPS mm.
    rois : sequence of str
        ``Mhub ROI`` of each point; it may list several names with commas.

    Returns
    -------
    pathlib.Path
        The file.
    """
    return _write(
        path,
        [
            {"Mhub ROI": roi, **_coordinates(point)}
            for point, roi in zip(points_mm, rois, strict=True)
        ],
    )


def write_centroid(path: Path, point_mm: Point) -> Path:
    """Write MHub's single point, LPS mm; returns the file."""
    return _write(path, _coordinates(point_mm))


def _coordinates(point_mm: Point) -> dict[str, float]:
    x, y, z = map(float, point_mm)
    return {"coordX": x, "coordY": y, "coordZ": z}


def _write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document, indent=4) + "\n", encoding="utf-8")
    return path

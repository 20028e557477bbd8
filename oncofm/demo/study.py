"""The phantom study that ``oncofm demo`` runs on: a CT series, its segmentation, a scout view."""

from dataclasses import dataclass
from pathlib import Path

from oncofm.demo.dicom import ct_geometry, write_ct_series, write_localizer
from oncofm.demo.phantom import Lesion, chest_scene
from oncofm.demo.segmentation import lesion_segments, write_seg

_SHAPE = (224, 160, 96)
_SPACING_MM = (1.6, 1.6, 2.5)


@dataclass(frozen=True)
class DemoStudy:
    """Where the files are and what is true about them.

    Attributes
    ----------
    folder : pathlib.Path
        Holds the whole study and nothing else.
    ct_files : tuple of pathlib.Path
        The CT series, feet to head.
    seg_file : pathlib.Path
        Binary segmentation with one segment per lesion, in the order of `lesions`.
    localizer_file : pathlib.Path
        A series of its own that must not be taken for a volume.
    lesions : tuple of Lesion
        True centres and radii in LPS mm.
    """

    folder: Path
    ct_files: tuple[Path, ...]
    seg_file: Path
    localizer_file: Path
    lesions: tuple[Lesion, ...]


def write_demo_study(folder: Path, seed: int = 0) -> DemoStudy:
    """Write the phantom study; the same seed writes the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
        Where to write ``ct/``, ``localizer/`` and ``seg/``; made if absent.
    seed : int
        Seed of the scene's texture.

    Returns
    -------
    DemoStudy
        About 8 MB of files, and the truth about them.
    """
    scene = chest_scene(seed, centre_mm=(-6.0, -172.0, -418.0))
    geometry = ct_geometry(scene, _SHAPE, _SPACING_MM)
    uid_seed = f"demo-{seed}"
    ct_files = write_ct_series(
        folder / "ct", scene, shape=_SHAPE, spacing_mm=_SPACING_MM, uid_seed=uid_seed
    )
    return DemoStudy(
        folder=folder,
        ct_files=tuple(ct_files),
        seg_file=write_seg(
            folder / "seg" / "lesions.dcm",
            ct_files,
            lesion_segments(scene, geometry),
            uid_seed=f"{uid_seed}/seg",
        ),
        localizer_file=write_localizer(
            folder / "localizer" / "topogram.dcm", scene, uid_seed=uid_seed
        ),
        lesions=scene.lesions,
    )

"""Which files are volumes by themselves; light, because a run on DICOM needs no more of it."""

from pathlib import Path

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def is_volume_file(path: Path) -> bool:
    """Whether the name of a file says NIfTI, NRRD or MetaImage."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)

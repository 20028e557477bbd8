"""CT volumes in one file: NIfTI, NRRD, MetaImage; their values are taken as Hounsfield units."""

import gzip
import threading
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from oncofm.errors import (
    SingleSliceError,
    SliceUndecodableError,
    UnreadableFileError,
    VolumeUnsupportedError,
)
from oncofm.imaging.cache import ByteCache
from oncofm.imaging.geometry import Geometry
from oncofm.notices import Notice

_META_HEADER_BYTES = 16 * 1024
_GZIP_BYTES = 4 * 1024 * 1024


class VolumeFile:
    """A volume in one file, a `Volume` whose header is read without its voxels.

    Boxes of uncompressed NIfTI and MetaImage files are read from disk each time. Other files
    can only be decoded as a whole; that is done once, with the first box.

    Attributes
    ----------
    volume_id : str
        Name of the file without its folder.
    geometry : Geometry
        Index -> LPS mm.
    notices : tuple of Notice
        Always empty.
    path : pathlib.Path
        The file.
    """

    def __init__(self, path: Path | str) -> None:
        """Read the header.

        Raises
        ------
        UnreadableFileError
            If the file does not exist or its header cannot be read.
        VolumeUnsupportedError
            If it has other than 3 axes, more than one value per voxel, or no geometry.
        SingleSliceError
            If it has one slice only.
        """
        self.path = Path(path)
        self.volume_id = self.path.name
        self.notices: tuple[Notice, ...] = ()
        reader = self._reader()
        _check_supported(self.path, reader)
        self.geometry = _geometry(reader)
        self._reads_boxes = _reads_boxes(self.path)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"VolumeFile({str(self.path)!r}, shape={self.geometry.shape})"

    def read_box(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
        """Read the voxels ``[start, stop)``; see `Volume`.

        Raises
        ------
        SliceUndecodableError
            If the file is truncated or broken.
        """
        try:
            if self._reads_boxes:
                reader = self._reader()
                reader.SetExtractIndex(list(start))
                reader.SetExtractSize([b - a for a, b in zip(start, stop, strict=True)])
                return sitk.GetArrayFromImage(reader.Execute()).astype(np.float32)
            i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
            return sitk.GetArrayViewFromImage(self._whole())[k, j, i].astype(np.float32)
        except (RuntimeError, OSError, EOFError, zlib.error) as error:
            raise SliceUndecodableError(
                f"{self.path} cannot be decoded; copy the file again."
            ) from error

    def release(self) -> None:
        """Give back the memory of the decoded volume; see `Volume`."""
        _IMAGES.drop(self)

    def _whole(self) -> sitk.Image:
        with self._lock:
            image = _IMAGES.get(self)
            if image is None:
                _check_gzip(self.path)
                image = sitk.ReadImage(str(self.path))
                _IMAGES.put(self, image)
            return image

    def _reader(self) -> sitk.ImageFileReader:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(self.path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            problem = "has a header that cannot be read" if self.path.exists() else "does not exist"
            raise UnreadableFileError(
                f"{self.path} {problem}; give a NIfTI, NRRD or MetaImage file."
            ) from error
        return reader


_IMAGES: ByteCache[sitk.Image] = ByteCache(
    1024**3,
    lambda image: image.GetNumberOfPixels() * image.GetSizeOfPixelComponent(),
)
"""Volumes that can only be decoded as a whole."""


def _check_supported(path: Path, reader: sitk.ImageFileReader) -> None:
    if reader.GetDimension() != 3:
        raise VolumeUnsupportedError(
            f"{path} has {reader.GetDimension()} axes; give a volume with 3."
        )
    if reader.GetNumberOfComponents() != 1:
        raise VolumeUnsupportedError(f"{path} has no single number per voxel; give a CT volume.")
    if min(reader.GetSize()) < 2:
        raise SingleSliceError(f"{path} has one slice and so no depth; give the whole volume.")
    if not _has_geometry(path, reader):
        raise VolumeUnsupportedError(
            f"{path} does not say where it lies in the patient; write it with its geometry."
        )


def _has_geometry(path: Path, reader: sitk.ImageFileReader) -> bool:
    """Whether the geometry stands in the file; ITK makes one up where it does not."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        codes = [_metadata(reader, key) for key in ("qform_code", "sform_code")]
        return any(code not in ("", "0") for code in codes)
    if name.endswith((".nrrd", ".nhdr")):
        return _metadata(reader, "NRRD_space") != ""
    keys = _meta_header(path)
    has_origin = not keys.keys().isdisjoint(("offset", "position", "origin"))
    return has_origin and not keys.keys().isdisjoint(("elementspacing", "elementsize"))


def _metadata(reader: sitk.ImageFileReader, key: str) -> str:
    return reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else ""


def _reads_boxes(path: Path) -> bool:
    name = path.name.lower()
    if name.endswith((".mha", ".mhd")):
        return _meta_header(path).get("compresseddata", "false").lower() != "true"
    return name.endswith(".nii")


def _check_gzip(path: Path) -> None:
    """Read a gzipped file to its checksum: ITK fills up a truncated one with zeros, silently."""
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as file:
            while file.read(_GZIP_BYTES):
                pass


def _meta_header(path: Path) -> dict[str, str]:
    """Keys in lower case and values of a MetaImage header, which ends with ElementDataFile."""
    keys: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file.read(_META_HEADER_BYTES).decode("latin-1").splitlines():
            key, _, value = line.partition("=")
            keys[key.strip().lower()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
    return keys


def _geometry(reader: sitk.ImageFileReader) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return Geometry.from_affine(affine, reader.GetSize())

"""Writing a phantom's dataset in any transfer syntax, the same bytes every time."""

import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

TRANSFER_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
)
"""Every transfer syntax that a phantom can be written in; all are lossless."""


def set_pixels(dataset: Dataset, pixels: np.ndarray, transfer_syntax: str) -> None:
    """Put 16-bit pixels into a dataset, encoded for a transfer syntax.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        With the attributes of the Image Pixel module set.
    pixels : numpy.ndarray
        int16 or uint16, shape (rows, columns) or (frames, rows, columns).
    transfer_syntax : str
        One of `TRANSFER_SYNTAXES`.

    Raises
    ------
    ValueError
        If the transfer syntax is none of those.
    """
    if transfer_syntax not in TRANSFER_SYNTAXES:
        raise ValueError(f"a phantom cannot be written as {transfer_syntax}")
    byte_order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(byte_order)).tobytes()
    dataset["PixelData"].VR = "OW"
    if transfer_syntax == JPEGLosslessSV1:
        _compress_by_gdcm(dataset)
    elif UID(transfer_syntax).is_compressed and (transfer_syntax != DeflatedExplicitVRLittleEndian):
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)


def save(dataset: Dataset, path: Path) -> None:
    """Write a dataset as a DICOM file with preamble and file meta information."""
    path.parent.mkdir(parents=True, exist_ok=True)
    syntax = dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(
        path,
        dataset,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )


def _compress_by_gdcm(dataset: Dataset) -> None:
    """Encode as JPEG Lossless (process 14, selection value 1), which pydicom cannot write."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain, compressed = Path(folder) / "plain.dcm", Path(folder) / "compressed.dcm"
        save(dataset, plain)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(compressed))
        if not reader.Read():
            raise RuntimeError("GDCM cannot read the phantom it should compress")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError("GDCM cannot compress the phantom as JPEG Lossless")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("GDCM cannot write the compressed phantom")
        pixel_data = pydicom.dcmread(compressed).PixelData
    n_frames = int(dataset.get("NumberOfFrames", 1))
    frames = [get_frame(pixel_data, k, number_of_frames=n_frames) for k in range(n_frames)]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1

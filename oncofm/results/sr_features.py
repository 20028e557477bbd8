"""All features of a lesion as a DICOM structured report of its own.

A table is the better carrier: this is for archives that keep nothing but DICOM.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from oncofm.results.sr import make_report, save_report, source_uid
from oncofm.results.sr_codes import NO_UNITS, private_code
from oncofm.results.sr_groups import Style
from oncofm.results.sr_numbers import Column
from oncofm.results.sr_series import FEATURES, EarlierReport, find_predecessor
from oncofm.results.sr_values import ReportedLesion, ReportProvenance


def write_features_sr(
    path: Path,
    ct_images: Sequence[Dataset],
    lesion: ReportedLesion,
    features: np.ndarray,
    provenance: ReportProvenance,
    *,
    style: Style,
    number: int,
    earlier: Sequence[EarlierReport] = (),
) -> str:
    """Write a report with a number for every feature of a lesion.

    It names the lesion as `oncofm.results.sr.write_sr` does, but says nothing of what heads
    predict. Deflated, because the tree of thousands of items is long and monotonous.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    ct_images : sequence of pydicom.dataset.Dataset
        Headers of the source series, all of it, in any order.
    lesion : ReportedLesion
        One of those that `oncofm.results.sr_groups.identify_lesions` gives.
    features : numpy.ndarray
        Shape (n_features,) float32, finite. Each is written with as many digits as give the same
        float32 again.
    provenance : ReportProvenance
        What made them.
    style : {"segment", "point"}
        As for `write_sr`.
    number : int
        Of the lesion in the series, from 1.
    earlier : sequence of EarlierReport
        Reports that exist; the newest of this series, model and lesion is the predecessor.

    Returns
    -------
    str
        SOP Instance UID.

    Raises
    ------
    UnreadableFileError, MissingGeometryError, OutputNotWritableError, ValueError
        As `write_sr`; ValueError also if a feature is not finite.
    """
    if features.ndim != 1 or not np.isfinite(features).all():
        raise ValueError("a report of features needs one row of finite features")
    lesion = replace(lesion, numbers=(), risk_groups=(), features_sha256=features_digest(features))
    previous = find_predecessor(
        earlier,
        FEATURES,
        source_series_uid=source_uid(ct_images),
        model=provenance.model,
        tracking_uid=lesion.tracking_uid,
    )
    report = make_report(
        ct_images,
        [lesion],
        provenance,
        style=style,
        series=FEATURES,
        number=number,
        more=_columns(features),
        previous=previous,
    )
    return save_report(path, report, DeflatedExplicitVRLittleEndian)


def _columns(features: np.ndarray) -> dict[Column, float]:
    n_digits = len(str(len(features) - 1))
    names = [
        private_code(f"feature-{index:0{n_digits}}", f"Feature {index}")
        for index in range(len(features))
    ]
    values = features.astype(np.float32).tolist()
    return {Column(name, NO_UNITS): value for name, value in zip(names, values, strict=True)}


def features_digest(features: np.ndarray) -> str:
    """SHA-256 of features as little-endian float32."""
    return hashlib.sha256(features.astype("<f4").tobytes()).hexdigest()

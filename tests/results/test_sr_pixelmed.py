"""Reports against PixelMed's rules for the template 1500, which are the most detailed there are."""

import re

import pydicom
import pytest
from pixelmed import validate_sr
from reports import PROVENANCE, describe_lesions, many
from studies import write_study

from oncofm.results.sr import write_sr

pytestmark = pytest.mark.slow

STEPS = [
    "Found Comprehensive3DSR IOD",
    "Found Root Template TID_1500 (MeasurementReport)",
    "Root Template Validation Complete",
    "IOD validation complete",
]
NOT_IN_TEMPLATE = re.compile(
    r"^Warning: .*/\w+ \((?P<code>[^()]+),\"[^/]*\"\): Content Item not in"
)
PRIVATE = re.compile(r".*,99ONCOFM")
"""Ignored: no template can know the items whose concepts are ours."""
ALGORITHM = {"111001,DCM", "111003,DCM", "111002,DCM", "111000,DCM"}
"""Ignored in groups of segments: the validator knows the algorithm (TID 4019) of a group of
TID 1501, but not of TID 1411. That template is extensible, and dcmqi and highdicom write the
algorithm there and look for it there."""


@pytest.mark.parametrize(("style", "n"), [("segment", 1), ("point", 1), ("segment", 2)])
def test_the_template_is_kept(tmp_path, style, n):
    study = write_study(tmp_path / "in", "pixelmed")
    cts = [pydicom.dcmread(file, stop_before_pixels=True) for file in study.ct_files]
    lesions = describe_lesions(study, pydicom.dcmread(study.seg_file, stop_before_pixels=True))
    write_sr(tmp_path / "sr.dcm", cts, many(lesions, n), PROVENANCE, style=style)

    lines = validate_sr(tmp_path / "sr.dcm")
    assert [line for line in lines if line in STEPS] == STEPS
    for line in lines:
        if line in STEPS:
            continue
        found = NOT_IN_TEMPLATE.match(line)
        assert found is not None, line
        known = PRIVATE.fullmatch(found["code"]) or (
            style == "segment" and found["code"] in ALGORITHM
        )
        assert known, line

"""The words of a report: coded concepts, text that fits its attribute, and derived UIDs."""

import hashlib
import json
import re
import unicodedata

from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99ONCOFM"
"""Coding Scheme Designator (0008,0102) of what no standard scheme has a code for."""

LESION = Code("52988006", "SCT", "Lesion")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
ENTIRE_BODY = Code("38266002", "SCT", "Entire body")
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")

VOLUME = Code("118565006", "SCT", "Volume")
LENGTH = Code("410668003", "SCT", "Length")
MEASUREMENT_METHOD = Code("370129005", "SCT", "Measurement Method")
PROBABILITY = Code("122157", "DCM", "Probability")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")

NO_UNITS = Code("1", "UCUM", "no units")
MM = Code("mm", "UCUM", "millimeter")
MM3 = Code("mm3", "UCUM", "cubic millimeter")
PERCENT = Code("%", "UCUM", "percent")


_SHORT_BYTES, _LONG_BYTES = 16, 64
"""What Code Value (SH) and Code Meaning (LO) may hold; in bytes, because many programs count
those instead of characters."""
_DIGEST_CHARACTERS = 8
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_UCUM = re.compile(r"[!-\[\]-~]{1,16}")


def private_code(value: str, meaning: str) -> Code:
    """Make a code of the private scheme.

    Parameters
    ----------
    value : str
        Any name; a long one becomes its beginning and a digest, and so do names that a Code
        Value cannot hold.
    meaning : str
        Any text; a long one is cut.

    Returns
    -------
    pydicom.sr.coding.Code
        With at most 16 bytes of value and 64 of meaning; equal names give equal values.
    """
    value = _code_value(value)
    return Code(value, PRIVATE_SCHEME, one_line(meaning, _LONG_BYTES) or value)


def ucum(unit: str) -> Code:
    """Make a unit; one that a Code Value cannot hold becomes an annotation, with its own text."""
    if unit == NO_UNITS.value:
        return NO_UNITS
    if _UCUM.fullmatch(unit):
        return Code(unit, "UCUM", unit)
    return Code("{arbitrary_unit}", "UCUM", one_line(unit, _LONG_BYTES) or "arbitrary unit")


def one_line(text: str, n_bytes: int) -> str:
    """Fit text into an LO or SH attribute: no control characters, no backslash, cut with dots."""
    text = " ".join(printable(text).replace("\\", "/").split())
    if len(text.encode()) <= n_bytes:
        return text
    return text.encode()[: n_bytes - 3].decode(errors="ignore").rstrip() + "..."


def printable(text: str) -> str:
    """Replace what no character set of DICOM can carry, and strip white space at the ends."""
    kept = (
        " " if unicodedata.category(character) in {"Cc", "Cs"} else character for character in text
    )
    return "".join(kept).strip()


def is_uid(text: str) -> bool:
    """Whether text is a UID as PS3.5 section 9.1 has it."""
    return len(text) <= _LONG_BYTES and _UID.fullmatch(text) is not None


def derived_uid(*parts: object) -> str:
    """Derive a UID from JSON values: the same values give the same UID, everywhere."""
    # numpy's numbers are none of JSON's, but stand for them.
    text = json.dumps(["oncofm report", *parts], sort_keys=True, default=float)
    digest = hashlib.sha256(text.encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _code_value(name: str) -> str:
    value = one_line(name, len(name.encode(errors="replace")) + 3)
    if value == name and 0 < len(value) <= _SHORT_BYTES and value.isascii():
        return value
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    ascii_part = value.encode("ascii", errors="ignore").decode()
    start = ascii_part[: _SHORT_BYTES - _DIGEST_CHARACTERS - 1].rstrip(" _-.")
    return f"{start}-{digest[:_DIGEST_CHARACTERS]}"


PREDICTION_TARGET = private_code("target", "Target of the prediction")
LONGEST_BOX_EDGE = private_code("longest-edge", "Longest edge of the bounding box")
PADDED_FRACTION = private_code("padded-fraction", "Fraction of the patch outside the volume")
DECISION_THRESHOLD = private_code("threshold", "Decision threshold")
SHIFTED_MEAN = private_code("shifted-mean", "Mean with shifted seeds")
SHIFTED_SD = private_code("shifted-sd", "Standard deviation with shifted seeds")
N_SHIFTS = private_code("n-shifts", "Number of shifted seeds")
TRAINING_PERCENTILE = private_code(
    "train-percentile", "Percentile of the distance to the training data"
)
HIGH_RISK = private_code("high-risk", "High risk group")
LOW_RISK = private_code("low-risk", "Low risk group")
INTENDED_USE = private_code("intended-use", "Intended use")
RESEARCH_ONLY = private_code("research-only", "Research use only, not for diagnosis or treatment")

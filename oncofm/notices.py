"""A notice: something the user should know about a result that was computed all the same."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Notice:
    """A warning that travels with a volume, a seed or a patch into the tables.

    Attributes
    ----------
    code : str
        Stable code, for example ``gantry_tilt`` or ``lesion_exceeds_patch``.
    message : str
        One sentence; UIDs and numbers only, no patient data.
    """

    code: str
    message: str

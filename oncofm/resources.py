"""Where the data files that ship with the program lie."""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: Literal["models", "config", "mhub"]) -> Path:
    """Find a folder of data files, in an installed package and in a source checkout.

    Parameters
    ----------
    name : str
        ``models`` (one folder per foundation model), ``config`` (the workflows) or ``mhub`` (their
        modules).

    Returns
    -------
    pathlib.Path
        ``oncofm/_data/<name>`` of the wheel where it exists, else ``<name>`` beside the package.

    Raises
    ------
    FileNotFoundError
        If the installation is incomplete.
    """
    places = (_PACKAGE / "_data" / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"oncofm is installed without its folder {name}; install it again.")

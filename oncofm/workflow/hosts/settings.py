"""What a host may choose about a run: a mapping with the names of `Settings`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oncofm.errors import SettingInvalidError
from oncofm.workflow.settings import Settings

HOST_SETTINGS = (
    "profile",
    "seed_kinds",
    "labels",
    "per",
    "min_volume_mm3",
    "seg_threshold",
    "heads",
    "sr",
    "sr_features",
    "key_images",
    "jitter",
)
"""The same as of a rule of the node: nothing that depends on the machine."""

_LARGEST_BYTES = 1_000_000
_DEFAULTS = {"sr": "auto"}


def host_settings(given: object, place: str) -> Settings:
    """Make settings of what a host says; without a word about it, reports are written.

    Parameters
    ----------
    given : object
        A mapping with names among `HOST_SETTINGS`; None is an empty one.
    place : str
        Where it stands, for messages.

    Raises
    ------
    SettingInvalidError
        If a name is unknown or a value is not possible.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise SettingInvalidError(f"{place} must be names with values, such as per: component.")
    for name in given:
        if name not in HOST_SETTINGS:
            raise SettingInvalidError(
                f"{place} name the unknown setting {str(name)[:40]!r}; known are "
                f"{', '.join(HOST_SETTINGS)}."
            )
    values: dict[str, Any] = _DEFAULTS | dict(given)
    try:
        settings = TypeAdapter(Settings).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0])
        raise SettingInvalidError(f"{place} give {name} a wrong value: {first['msg']}.") from error
    if settings.sr == "none":
        raise SettingInvalidError(f"{place} ask for no reports (sr: none); a host sends reports.")
    return settings


def read_small(path: Path) -> str:
    """Read a text file that a host wrote.

    Raises
    ------
    SettingInvalidError
        If it cannot be read, is no text or is larger than any such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
        if len(data) > _LARGEST_BYTES:
            raise SettingInvalidError(f"{path} is larger than 1 MB; it must hold settings only.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise SettingInvalidError(
            f"{path} cannot be read ({error.strerror or error}); mend its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingInvalidError(f"{path} is no text in UTF-8; write it again.") from error

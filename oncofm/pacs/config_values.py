"""Kinds of values in the configuration of a node."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_AE_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")


def _ae_title(text: str) -> str:
    if not _AE_TITLE.fullmatch(text):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return text


def _path(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    if value.startswith("~") or "\0" in value:
        raise ValueError("a path is written out, without ~ and the character 0")
    return Path(value)


def listed(value: Any) -> Any:
    """Take a list of YAML for a tuple, and all else as it is."""
    return tuple(value) if isinstance(value, list) else value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(listed)]
AETitles = Annotated[tuple[AETitle, ...], BeforeValidator(listed)]
File = Annotated[Path, BeforeValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Patience = Annotated[float, Field(gt=0, le=86_400)]
"""Seconds that a connection may be silent; a socket can wait for so long."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$")]
"""It stands for the calling AE title of what is fetched."""
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")]
Modality = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]
Modalities = Annotated[tuple[Modality, ...], BeforeValidator(listed)]
Alternatives = Annotated[str, Field(pattern=r"^ *[A-Z0-9_]+ *(\| *[A-Z0-9_]+ *)*$")]
"""Modalities of which one will do, ``SEG|RTSTRUCT`` for example."""
Requirements = Annotated[tuple[Alternatives, ...], BeforeValidator(listed)]


class Section(BaseModel):
    """A part of the configuration: no key that is not known, no number that is none."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

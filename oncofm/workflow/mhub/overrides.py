"""``--config:modules.Module.key=value``: what a user changes about a workflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oncofm.errors import SettingInvalidError, WorkflowUnknownError
from oncofm.workflow.mhub.models import Workflow
from oncofm.workflow.settings import Settings


@dataclass(frozen=True)
class Override:
    """One change.

    Attributes
    ----------
    place : tuple of str
        ``("general", key)`` or ``("modules", module, key)``.
    value : str
        As the user wrote it; the declared type of the key decides how it is read.
    """

    place: tuple[str, ...]
    value: str


def parse_override(text: str) -> Override:
    """Parse ``modules.Module.key=value`` or ``general.key=value``.

    Raises
    ------
    SettingInvalidError
        If it has another form.
    """
    place, equals, value = text.partition("=")
    parts = tuple(place.replace("#", ".").split("."))
    lengths = {"general": 2, "modules": 3}
    if not equals or len(parts) != lengths.get(parts[0]) or not all(parts):
        raise SettingInvalidError(
            f"{text!r} is no override; write modules.MODULE.KEY=VALUE or general.KEY=VALUE."
        )
    return Override(parts, value)


def overrides_of(settings: Settings) -> list[Override]:
    """Say the settings that differ from the defaults as overrides of our modules."""
    default = Settings()
    return [
        Override(("modules", module, key), _text(getattr(settings, name)))
        for name, (module, key) in _PLACES.items()
        if getattr(settings, name) != getattr(default, name)
    ]


_PLACES = {
    "seed_kinds": ("SeedExtractor", "kinds"),
    "labels": ("SeedExtractor", "labels"),
    "per": ("SeedExtractor", "per"),
    "min_volume_mm3": ("SeedExtractor", "min_volume_mm3"),
    "seg_threshold": ("SeedExtractor", "threshold"),
    "weights": ("FeatureExtractor", "weights"),
    "expected_sha256": ("FeatureExtractor", "sha256"),
    "profile": ("FeatureExtractor", "profile"),
    "engine": ("FeatureExtractor", "engine"),
    "device": ("FeatureExtractor", "device"),
    "precision": ("FeatureExtractor", "precision"),
    "batch_size": ("FeatureExtractor", "batch_size"),
    "heads": ("BiomarkerPredictor", "heads"),
    "jitter": ("BiomarkerPredictor", "jitter"),
    "sr": ("ResultExporter", "sr"),
    "sr_features": ("ResultExporter", "sr_features"),
    "revises": ("ResultExporter", "revises"),
    "key_images": ("ResultExporter", "key_images"),
    "report": ("ResultExporter", "report"),
}
"""Where our modules take the settings from."""


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, tuple) else str(value)


def apply_overrides(
    workflow: Workflow, classes: Sequence[type], overrides: Sequence[Override]
) -> dict[str, Any]:
    """Check a workflow's configuration key by key, with the overrides in it.

    Parameters
    ----------
    workflow : Workflow
        As read.
    classes : sequence of type
        The module classes of its steps.
    overrides : sequence of Override
        Later ones win.

    Returns
    -------
    dict
        The sections of the workflow file, changed.

    Raises
    ------
    WorkflowUnknownError
        If a module or key does not exist, with those that do.
    SettingInvalidError
        If a value has another type than its key.
    """
    content = workflow.content | {
        "general": dict(workflow.content["general"]),
        "modules": {name: dict(keys) for name, keys in workflow.content["modules"].items()},
    }
    declared = {cls.__name__: declared_keys(cls) for cls in classes}
    for override in overrides:
        if override.place[0] == "general":
            _override_general(content["general"], override)
        else:
            _override_module(content["modules"], declared, override)
    for module, keys in declared.items():
        _check_section(module, content["modules"].get(module, {}), keys)
    for (module, local), cls in zip(workflow.steps, classes, strict=True):
        _check_section(module, local, declared_keys(cls))
    return content


def declared_keys(cls: type) -> dict[str, Any]:
    """Keys that a module class declares (``IO.Config``, ``IO.ConfigInput``), with their types."""
    keys: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, kind in vars(base).get("__annotations__", {}).items():
            if isinstance(vars(base).get(name), property):
                keys[name] = kind
        prefix = "_mhubio_configinput_"
        keys |= {name.removeprefix(prefix): str for name in vars(base) if name.startswith(prefix)}
    return keys


def _override_general(general: dict[str, Any], override: Override) -> None:
    key = override.place[1]
    if key not in general:
        raise WorkflowUnknownError(
            f"The workflow has no general.{key}; there are {_listed(general, 'general.')}."
        )
    general[key] = _read(override.value, type(general[key]), f"general.{key}")


def _override_module(
    sections: dict[str, dict[str, Any]],
    declared: Mapping[str, Mapping[str, Any]],
    override: Override,
) -> None:
    _, module, key = override.place
    if module not in declared:
        raise WorkflowUnknownError(
            f"The workflow has no module {module!r}; there are {', '.join(declared)}."
        )
    section = sections.setdefault(module, {})
    known = dict(declared[module])
    known |= {name: Any for name in section if name not in known}
    if key not in known:
        raise WorkflowUnknownError(
            f"Module {module} has no key {key!r}; there are {_listed(known) or 'none'}."
        )
    section[key] = _read(override.value, known[key], f"modules.{module}.{key}")


def _check_section(module: str, section: dict[str, Any], keys: Mapping[str, Any]) -> None:
    """Check the types of declared keys; of a module that declares any, also the keys."""
    for key, value in section.items():
        if key not in keys:
            if keys:  # a module that declares none may read keys all the same
                raise WorkflowUnknownError(
                    f"Module {module} has no key {key!r}; there are {_listed(keys)}."
                )
            continue
        kind = keys[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            section[key] = float(value)
        elif isinstance(kind, type) and (
            not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        ):
            raise SettingInvalidError(
                f"modules.{module}.{key} is {value!r}; it must be of type {kind.__name__}."
            )


def _read(text: str, kind: Any, place: str) -> Any:
    """Read a value as its key's type; without a declared type as JSON, else as text."""
    if kind is str:
        return text
    if kind is list and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        value = {"True": True, "False": False, "None": None}.get(text, text)
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        if kind in (int, float, bool, list, dict):
            hint = ', as in a,b or ["a", "b"]' if kind is list else ""
            raise SettingInvalidError(
                f"{place} is {text!r}; it must be of type {kind.__name__}{hint}."
            ) from None
        return text


def _listed(keys: Mapping[str, Any], prefix: str = "") -> str:
    return ", ".join(prefix + key for key in keys)

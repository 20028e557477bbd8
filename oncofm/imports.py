"""Imports of large libraries without what they would load for others."""

import importlib
import sys
from types import ModuleType
from typing import Any


def import_without(unwanted: str, name: str) -> ModuleType:
    """Import a module as if another one, which it can do without, were not installed.

    Parameters
    ----------
    unwanted : str
        The other one; if it is imported already, it stays.
    name : str
        The module.

    Raises
    ------
    ImportError
        If the module is not installed, or needs the other one after all.
    """
    modules: dict[str, Any] = sys.modules
    is_blocked = unwanted not in modules
    if is_blocked:
        modules[unwanted] = None  # what makes an import of it fail
    try:
        return importlib.import_module(name)
    finally:
        if is_blocked:
            del modules[unwanted]

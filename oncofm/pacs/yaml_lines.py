"""YAML files whose errors name the line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from oncofm.pacs.errors import PacsConfigError

Model = TypeVar("Model", bound=BaseModel)

_WORDS = {
    "extra_forbidden": "there is no such key; see the docs",
    "missing": "it must be given",
    "tuple_type": "it must be a list, for example [A, B]",
    "model_type": "it must have keys of its own",
    "dict_type": "it must have keys of its own",
    "is_instance_of": "it must be a path",
    "union_tag_not_found": "its type must be given",
}
"""For what pydantic says in the words of Python."""


class PlacedError(ValueError):
    """A mistake that a check of the whole found in a part of it.

    Attributes
    ----------
    place : tuple of str and int
        Keys and indices from there to the part.
    """

    def __init__(self, message: str, *place: str | int) -> None:
        super().__init__(message)
        self.place = place


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a YAML file as a model.

    Parameters
    ----------
    path : pathlib.Path
        UTF-8 text.
    model : type of pydantic.BaseModel
        What it must be.

    Raises
    ------
    PacsConfigError
        With the line of each mistake.
    """
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PacsConfigError(f"{path}, line {line}: {error.problem}; mend the YAML.") from error
    except OSError as error:
        raise PacsConfigError(
            f"{path} cannot be read ({error.strerror or error}); name a configuration file."
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise PacsConfigError(f"{path} is no YAML in UTF-8; write it anew.") from error
    if not isinstance(tree, yaml.MappingNode):
        raise PacsConfigError(f"{path}, line 1: a node's configuration is a mapping; see the docs.")
    for line, key in _repeated(tree, set()):
        raise PacsConfigError(f"{path}, line {line}: {key} is there twice; remove one.")
    try:
        return model.model_validate(_value(tree))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise PacsConfigError(f"{path} is no plain YAML; write it anew.") from error
        problems = [_sentence(tree, problem) for problem in error.errors(include_url=False)]
        raise PacsConfigError(f"{path}, {'; '.join(dict.fromkeys(problems))}.") from error


def line_of(tree: yaml.Node, place: Sequence[int | str]) -> int:
    """Line, from 1, of what keys and indices lead to; of the last that exists."""
    line = tree.start_mark.line + 1
    for step in place:
        if isinstance(tree, yaml.MappingNode):
            found = [pair for pair in tree.value if pair[0].value == str(step)]
            if not found:
                continue  # pydantic also names the kind of a union's member
            line, tree = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(tree, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(tree.value):
                break
            tree = tree.value[step]
            line = tree.start_mark.line + 1
    return line


def _sentence(tree: yaml.Node, problem: ErrorDetails) -> str:
    """Say where something is wrong, and what."""
    place = (*problem["loc"], *getattr(problem.get("ctx", {}).get("error"), "place", ()))
    said = _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"line {line_of(tree, place)}: {'.'.join(map(str, place)) or 'the file'}: {said}"


def _value(tree: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(tree)
    finally:
        loader.dispose()


def _repeated(tree: yaml.Node, seen_nodes: set[int]) -> Iterator[tuple[int, str]]:
    """Find keys that are there twice; what an alias names again is looked at once."""
    if id(tree) in seen_nodes:
        return
    seen_nodes.add(id(tree))
    if isinstance(tree, yaml.MappingNode):
        seen = set()
        for key, value in tree.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key.start_mark.line + 1, key.value
                seen.add(key.value)
            yield from _repeated(value, seen_nodes)
    elif isinstance(tree, yaml.SequenceNode):
        for value in tree.value:
            yield from _repeated(value, seen_nodes)

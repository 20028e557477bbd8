r"""Installs what some packages need into a folder of its own, so that it becomes an image layer.

The lock also holds what only development needs. So this walks from the requirements that it is
given through the metadata of what it has installed, one generation after the other, and takes
from the lock exactly what it meets. Versions and hashes are the lock's alone: a pin that the lock
overrides is not looked at.

    install_layer.py --lock requirements.lock --prefix /layers/dependencies \
        [--beside /layers/torch] REQUIREMENT...
"""

import argparse
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHON = "/opt/oncofm/bin/python"


def main() -> None:
    options = _parse_arguments()
    locked = read_lock(options.lock)
    places = [_site_packages(prefix) for prefix in (options.prefix, *options.beside)]
    met: set[tuple[str, str]] = set()
    generation = [Requirement(text) for text in options.requirements]
    while generation:
        present = {canonicalize_name(d.name): d for d in metadata.distributions(path=places)}
        absent = sorted({canonicalize_name(r.name) for r in generation} - present.keys())
        _install(options.prefix, [locked[name] for name in absent if name in locked])
        present = {canonicalize_name(d.name): d for d in metadata.distributions(path=places)}
        generation = [
            requirement
            for wanted in generation
            if (found := present.get(canonicalize_name(wanted.name)))
            for requirement in _requirements(found, wanted.extras, met)
        ]


def read_lock(path: Path) -> dict[str, str]:
    """Entries of a lock by canonical name, each with its hashes."""
    entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))
    return {
        canonicalize_name(Requirement(entry.split(" \\")[0]).name): entry
        for entry in entries
        if entry.strip() and not entry.startswith("#")
    }


def _requirements(
    found: metadata.Distribution, extras: set[str], met: set[tuple[str, str]]
) -> list[Requirement]:
    """Say what a package needs here, itself and for its extras; each is asked for once."""
    name = canonicalize_name(found.name)
    new = [extra for extra in ("", *sorted(extras)) if (name, extra) not in met]
    met.update((name, extra) for extra in new)
    needed = map(Requirement, found.requires or ())
    return [
        requirement
        for requirement in needed
        if any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for extra in new
        )
    ]


def _install(prefix: Path, entries: list[str]) -> None:
    if not entries:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(entries) + "\n")
        file.flush()
        pip_install("--no-deps", "--prefix", prefix, "--require-hashes", "-r", file.name)


def pip_install(*arguments: str | Path) -> str:
    """Run ``pip install`` for the image's Python; what it prints is returned."""
    command = ["site-pip", "--python", PYTHON, "install", "--quiet", "--no-compile", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _site_packages(prefix: Path) -> str:
    return str(prefix / "lib" / f"python3.{sys.version_info.minor}" / "site-packages")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--beside", type=Path, action="append", default=[])
    parser.add_argument("requirements", nargs="*")
    return parser.parse_args()


if __name__ == "__main__":
    main()

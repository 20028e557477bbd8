"""Takes from the project what the slow layers depend on, so that nothing else touches them.

    project.py PYPROJECT.toml INIT.py FOLDER

Writes ``FOLDER/dependencies-cpu.txt`` and ``-cuda.txt`` (a requirement per line, without torch;
the node's are in both, the engine for CPUs in one) and ``FOLDER/pyproject.toml`` (name, version,
licence and description for the SBOM).
"""

import json
import re
import sys
import tomllib
from pathlib import Path

GROUPS = {"cpu": ("pacs", "openvino"), "cuda": ("pacs",)}
"""Optional dependencies that the image has, by the kind of torch in it."""


def main() -> None:
    source, init, folder = map(Path, sys.argv[1:])
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
    version = re.search(r'^__version__ = "(.*)"', init.read_text(encoding="utf-8"), re.MULTILINE)
    if version is None:
        raise SystemExit(f"{init} has no __version__.")
    folder.mkdir(parents=True, exist_ok=True)
    core = [text for text in project["dependencies"] if not re.match(r"torch\b", text)]
    for torch, groups in GROUPS.items():
        extra = (text for group in groups for text in project["optional-dependencies"][group])
        lines = "\n".join((*core, *extra)) + "\n"
        (folder / f"dependencies-{torch}.txt").write_text(lines, encoding="utf-8")
    facts = {name: project[name] for name in ("name", "description", "license")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    lines.append(f"version = {json.dumps(version[1])}")
    (folder / "pyproject.toml").write_text("[project]\n" + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""Takes from the project what the slow layers depend on, so that nothing else touches them.

    project.py PYPROJECT.toml INIT.py FOLDER

Writes ``FOLDER/dependencies.txt`` (a requirement per line, without torch) and
``FOLDER/pyproject.toml`` (name, version, licence and description for the SBOM).
"""

import json
import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    source, init, folder = map(Path, sys.argv[1:])
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
    version = re.search(r'^__version__ = "(.*)"', init.read_text(encoding="utf-8"), re.MULTILINE)
    if version is None:
        raise SystemExit(f"{init} has no __version__.")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [text for text in project["dependencies"] if not re.match(r"torch\b", text)]
    (folder / "dependencies.txt").write_text("\n".join(wanted) + "\n", encoding="utf-8")
    facts = {name: project[name] for name in ("name", "description", "license")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    lines.append(f"version = {json.dumps(version[1])}")
    (folder / "pyproject.toml").write_text("[project]\n" + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

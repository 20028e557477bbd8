"""Writes what pip is told on this machine as build secrets: FOLDER/pip (a pip.conf), FOLDER/ca.

Only settings that mean something inside a build: where packages come from over the network, and
the certificates for it.
"""

import ast
import subprocess
import sys
from pathlib import Path

_KEPT = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "retries",
    "timeout",
    "default-timeout",
)
# Sections that count for an installation; the later one wins, as in pip.
_SECTIONS = ("global", "install", ":env:")


def main() -> None:
    folder = Path(sys.argv[1])
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    settings = _merge(listing.stdout.splitlines())
    if certificates := settings.get("cert"):
        (folder / "ca").write_bytes(Path(certificates).read_bytes())
    kept = {name: _network_part(settings[name]) for name in _KEPT if name in settings}
    lines = [f"{name} = {value}\n" for name, value in kept.items() if value]
    if lines:
        (folder / "pip").write_text("[global]\n" + "".join(lines), encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o600)


def _merge(lines: list[str]) -> dict[str, str]:
    """Merge lines such as ``global.cert='/a'`` and ``:env:.cert='/b'``."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in lines:
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def _network_part(value: str) -> str:
    return " ".join(part for part in value.split() if not part.startswith("file:"))


if __name__ == "__main__":
    main()

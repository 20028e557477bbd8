"""Completes the SBOM of the Python environment with Debian's packages, and validates it.

    sbom.py ENVIRONMENT.json PACKAGES.tsv OUTPUT.json

``PACKAGES.tsv`` holds a line per Debian package: name, version, architecture.
"""

import json
import sys
from pathlib import Path
from urllib.parse import quote

# Installed in the build only.
from cyclonedx.schema import SchemaVersion  # pyright: ignore[reportMissingImports]
from cyclonedx.validation.json import (  # pyright: ignore[reportMissingImports]
    JsonStrictValidator,
)

_DISTRIBUTION = "debian-12"


def main() -> None:
    environment, packages, output = map(Path, sys.argv[1:])
    sbom = json.loads(environment.read_text(encoding="utf-8"))
    rows = packages.read_text(encoding="utf-8").splitlines()
    sbom["components"] += [_component(*row.split("\t")) for row in rows]
    # The program is not installed yet where its environment is looked at.
    parts = [component["bom-ref"] for component in sbom["components"]]
    root = sbom["metadata"]["component"]["bom-ref"]
    others = [entry for entry in sbom["dependencies"] if entry["ref"] != root]
    sbom["dependencies"] = [*others, {"ref": root, "dependsOn": sorted(parts)}]
    text = json.dumps(sbom, indent=1) + "\n"
    version = SchemaVersion.from_version(sbom["specVersion"])
    if error := JsonStrictValidator(version).validate_str(text):
        raise SystemExit(f"The SBOM is not valid CycloneDX {sbom['specVersion']}: {error}")
    output.write_text(text, encoding="utf-8")


def _component(name: str, version: str, architecture: str) -> dict[str, str]:
    purl = (
        f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}"
        f"?arch={architecture}&distro={_DISTRIBUTION}"
    )
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main()

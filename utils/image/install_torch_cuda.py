"""Installs the CUDA build of torch with the libraries that it pins and the lock leaves out.

    install_torch_cuda.py LOCK PREFIX VERSION

pip's resolver chooses them beside the locked versions; what the lock has comes in its own layer.
"""

import json
import sys
import tempfile
from pathlib import Path

from install_layer import pip_install, read_lock
from packaging.utils import canonicalize_name


def main() -> None:
    lock, prefix, version = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    locked = read_lock(lock)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.writelines(f"{entry.split()[0]}\n" for entry in locked.values())
        constraints.flush()
        report = pip_install(
            *("--dry-run", "--ignore-installed", "--report", "-"),
            *("--constraint", constraints.name, f"torch=={version}"),
        )
    chosen = [found["metadata"] for found in json.loads(report)["install"]]
    pins = [
        f"{facts['name']}=={facts['version']}"
        for facts in chosen
        if canonicalize_name(facts["name"]) not in locked
    ]
    pip_install("--no-deps", "--prefix", prefix, *pins)


if __name__ == "__main__":
    main()

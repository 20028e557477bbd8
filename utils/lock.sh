#!/usr/bin/env bash
# Rewrites requirements.lock from the ranges in pyproject.toml (needs uv).
# torch stays out of the lock: the Makefile installs it, as a CPU or a CUDA build.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
uv pip compile pyproject.toml --extra dev --quiet --upgrade \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --constraint <(echo "torch==2.13.0") --no-emit-package torch \
    --generate-hashes --no-header --no-annotate --output-file requirements.lock

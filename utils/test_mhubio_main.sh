#!/bin/sh
# Run the tests of the MHub layer against a checkout of mhubio instead of the release from PyPI.
# The checkout is only put in front of the installed packages; nothing is installed.
set -eu

if [ -z "${MHUBIO_MAIN:-}" ]; then
    echo "Name a checkout: git clone https://github.com/MHubAI/mhubio && MHUBIO_MAIN=\$PWD/mhubio make test-mhubio-main" >&2
    exit 1
fi
if [ ! -f "$MHUBIO_MAIN/mhubio/core/Module.py" ]; then
    echo "MHUBIO_MAIN=$MHUBIO_MAIN is no checkout of mhubio; it has no mhubio/core/Module.py." >&2
    exit 1
fi
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH=$(cd "$MHUBIO_MAIN" && pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1
cd "$root"
.venv/bin/python -c 'import mhubio; print("mhubio from", *mhubio.__path__)'
exec .venv/bin/pytest tests/mhub "$@"

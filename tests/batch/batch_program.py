"""A batch in a process of its own, to be killed: ``batch_program.py HOW SOURCE OUT [PACE]``.

HOW is ``processes`` or ``here``: what reads. PACE seconds pass for every four lesions, and a part
is written for every two, so that there is something to interrupt. Each event is a line.
"""

import sys
import time
from pathlib import Path

from batches import ReadersHere, SmallEncoder

from oncofm.errors import SetupError
from oncofm.workflow.batch import run as run_module
from oncofm.workflow.batch.run import BatchOptions, run_batch
from oncofm.workflow.settings import Settings


def main() -> int:
    how, source, output, *pace = sys.argv[1:]
    pace_s = float(pace[0]) if pace else 0.0

    class Paced(SmallEncoder):
        def encode(self, patches):
            time.sleep(pace_s)
            return super().encode(patches)

    run_module.start_loading = lambda *_: Paced
    if how == "here":
        run_module.Readers = ReadersHere
    if pace_s:
        run_module._LESIONS_PER_PART = 2
    print("ready", flush=True)
    try:
        result = run_batch(
            Path(source),
            Path(output),
            Settings(),
            BatchOptions(resume=True),
            lambda event: print(event["event"], flush=True),
        )
    except SetupError as error:
        print(error, flush=True)
        return 1
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())

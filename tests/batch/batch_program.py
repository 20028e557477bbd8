"""A batch in a process of its own, to be killed: ``batch_program.py HOW SOURCE OUT [N GATE]``.

HOW is ``processes`` or ``here``: what reads. The encoder waits with its batch number N, and with
all after it, until there is a file GATE, so that the batch is not over before it is interrupted;
a part is written for every two lesions then. Each event is a line.
"""

import sys
import time
from pathlib import Path

from batches import ReadersHere, SmallEncoder

from oncofm.errors import SetupError
from oncofm.workflow.batch import computers, writer
from oncofm.workflow.batch.options import BatchOptions
from oncofm.workflow.batch.run import run_batch
from oncofm.workflow.settings import Settings


def main() -> int:
    how, source, output, *gate = sys.argv[1:]

    class Gated(SmallEncoder):
        def encode(self, patches):
            while gate and len(self.batches) + 1 >= int(gate[0]) and not Path(gate[1]).exists():
                time.sleep(0.02)
            return super().encode(patches)

    computers.start_loading = lambda *_: Gated
    if how == "here":
        computers.Readers = ReadersHere
    if gate:
        writer._LESIONS_PER_PART = 2
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

"""The command ``oncofm`` without a network, which can be held up.

After ONCOFM_GATE_AFTER batches of four lesions it waits for the file ONCOFM_GATE or for SIGTERM;
where ONCOFM_DEAF is set, for the file alone.
"""

import os
import time
from contextlib import contextmanager
from pathlib import Path

import oncofm_without_network  # noqa: F401
from batches import SmallEncoder

from oncofm.cli import main
from oncofm.workflow.batch import computers, work, writer

noting_sigterm = work._noting_sigterm
received: list[list[int]] = []


@contextmanager
def noted():
    with noting_sigterm() as terminated:
        received.append(terminated)
        yield terminated


class Held(SmallEncoder):
    def encode(self, patches):
        if len(self.batches) >= int(os.environ.get("ONCOFM_GATE_AFTER", "1000000")):
            while not self._may_go_on():
                time.sleep(0.05)
        return super().encode(patches)

    def _may_go_on(self) -> bool:
        hears = "ONCOFM_DEAF" not in os.environ
        return (hears and any(received)) or Path(os.environ["ONCOFM_GATE"]).exists()


work._noting_sigterm = noted
computers.start_loading = lambda *_: Held
writer._LESIONS_PER_PART = 2

if __name__ == "__main__":
    main()

"""``oncofm pacs work`` without a network: says which studies it takes, and can dawdle.

Arguments: the configuration, and the seconds that each job takes longer.
"""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from nodes import RunnerHere  # noqa: E402

from oncofm.pacs.config import read_config  # noqa: E402
from oncofm.pacs.work import work  # noqa: E402

if __name__ == "__main__":

    def dawdle(order):
        print(order.study_uid, flush=True)
        time.sleep(float(sys.argv[2]))

    runner = RunnerHere()
    runner.before = dawdle
    work(read_config(Path(sys.argv[1])), lambda text: print(text, flush=True), runner)

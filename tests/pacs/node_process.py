"""A node that tests may kill: for each line on standard input a new process that serves.

Everything is imported once, and processes are forked from that, so that a start takes no seconds.
"""

import os
import signal
import sys
import threading
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import highdicom  # noqa: E402, F401
from nodes import RunnerHere  # noqa: E402

import oncofm.workflow.reports  # noqa: E402, F401
from oncofm.pacs.config import read_config  # noqa: E402
from oncofm.pacs.node import open_node  # noqa: E402

if __name__ == "__main__":
    config = read_config(Path(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            with open_node(config, runner=RunnerHere()):
                threading.Event().wait()
        print(pid, flush=True)

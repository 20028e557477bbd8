"""Paths that do something to the process that looks at them; imported by reader processes."""

import ctypes
import os
import threading
import time
from pathlib import Path

_Path = type(Path())


class Exits(_Path):
    def exists(self):
        os._exit(7)


class Crashes(_Path):
    def exists(self):
        ctypes.string_at(0)


class Hangs(_Path):
    def exists(self):
        time.sleep(60)


class Raises(_Path):
    def exists(self):
        raise RuntimeError("PATIENT^NAME")


class RunsOutOfMemory(_Path):
    def exists(self):
        raise MemoryError


class DiesSoon(_Path):
    """An empty folder; three seconds later the process is gone, whatever it is doing."""

    def exists(self):
        threading.Timer(3.0, lambda: os._exit(9)).start()
        return True

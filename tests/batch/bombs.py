"""Paths that do something to the process that looks at them; imported by reader processes."""

import ctypes
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

_Path = type(Path())
_send = Connection.send


class Exits(_Path):
    def exists(self):
        os._exit(7)


class Crashes(_Path):
    def exists(self):
        ctypes.string_at(0)


class Hangs(_Path):
    def exists(self):
        time.sleep(3600)


class Raises(_Path):
    def exists(self):
        raise RuntimeError("PATIENT^NAME")


class RunsOutOfMemory(_Path):
    def exists(self):
        raise MemoryError


class DiesInMidMessage(_Path):
    """An empty folder; its process is gone in the middle of its second message from then on."""

    def exists(self):
        sent = []

        def send(connection, message):
            if sent:
                os.write(connection.fileno(), b"\0\1\0\0half of")  # 65536 bytes
                os._exit(9)
            sent.append(_send(connection, message))

        Connection.send = send
        return True

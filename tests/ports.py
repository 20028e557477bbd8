"""Ports of the loopback for programs that cannot be told to take any."""

import os
import random
import socket
from collections.abc import Iterator

_FIRST, _N_PORTS, _N_WORKERS = 10_000, 5_000, 4


def free_port() -> int:
    """Port that nobody has, and that nobody takes before it is used.

    The system gives away ports above these by itself, to servers that ask for any and to every
    connection that somebody opens. Workers of pytest have ports of their own.
    """
    for port in _ports:
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise RuntimeError("every port of this process was given away")


def _candidates() -> Iterator[int]:
    """Each once, from a random place on: another run of the tests begins at another one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + worker % _N_WORKERS * _N_PORTS
    start = random.SystemRandom().randrange(_N_PORTS)
    for number in range(_N_PORTS):
        yield first + (start + number) % _N_PORTS


_ports = _candidates()

"""A PostgreSQL for tests, on the loopback, in a folder of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port
from tools import require_tool

NOBODY = 65534


class Postgres:
    """A server; it runs as nobody where tests run as root, whom it refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = NOBODY if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user, self._user)
        self._port = free_port()
        self.url = f"postgresql://oncofm@127.0.0.1:{self._port}/postgres"
        command = [require_tool("initdb"), "-D", str(folder / "data"), "-U", "oncofm"]
        subprocess.run(
            [*command, "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=folder,
        )

    def start(self) -> None:
        """Start it; it answers from then on."""
        place = ["-p", str(self._port), "-k", str(self._folder), "-h", "127.0.0.1"]
        self._process = subprocess.Popen(
            [require_tool("postgres"), "-D", str(self._folder / "data"), *place],
            stderr=subprocess.PIPE,
            text=True,
            user=self._user,
            cwd=self._folder,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "ready to accept connections" in line:
                return

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=180)

    def restart(self) -> None:
        """Cut all connections."""
        self.stop()
        self.start()


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="oncofm-pg-"))
    try:
        server = Postgres(folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

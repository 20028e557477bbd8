"""A docker client, what a container left behind, and how both are called here."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = "12345:12345"
HARDENED = (
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp",
)


@dataclass(frozen=True)
class Engine:
    """A docker client whose engine answers."""

    docker: str

    def __call__(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``docker ARGUMENTS`` and catch what it prints."""
        command = [self.docker, *map(str, arguments)]
        return subprocess.run(
            command, check=check, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    def lines(self, *arguments: object) -> list[str]:
        """Run ``docker ARGUMENTS``; the lines that it prints."""
        return self(*arguments).stdout.splitlines()


@dataclass(frozen=True)
class ContainerResult:
    """What a container left behind.

    Attributes
    ----------
    code : int
        Exit code.
    stdout, stderr : str
        What it printed.
    changes : list of str
        Lines of ``docker diff``: what it wrote outside of mounts.
    """

    code: int
    stdout: str
    stderr: str
    changes: list[str]


def make_readable(folder: Path) -> None:
    """Let every user read a folder; pytest's own are private."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def give_to(user: str, folder: Path) -> None:
    """Make a folder a user's own; `user` is ``uid:gid``."""
    os.chown(folder, *map(int, user.split(":")))

"""Instances into a folder: WADO-RS (PS3.18 10.4), part by part; what is missing is asked again."""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from oncofm.dicomweb.address import Resource
from oncofm.dicomweb.instance import Fetched, identify
from oncofm.dicomweb.multipart import Body, read_parts
from oncofm.dicomweb.search import InstanceFound, find_instances, find_series
from oncofm.dicomweb.server import Server
from oncofm.errors import (
    OutputNotWritableError,
    WebAnswerError,
    WebUnavailableError,
)

_SUFFIX, _TEMPORARY = ".dcm", ".part"

Result = TypeVar("Result")


def fetch(server: Server, resource: Resource, folder: Path) -> None:
    """Fetch a study, a series or an instance.

    Parameters
    ----------
    server : Server
        Where it is.
    resource : Resource
        What it is.
    folder : pathlib.Path
        Gets ``<SOP Instance UID>.dcm`` for each; what it has of them is not fetched again. Files
        are whole, but not synced to the disk.

    Raises
    ------
    WebError
        If something of it cannot be had.
    OutputNotWritableError
        If the folder cannot be written.
    """
    _writing(folder, lambda: folder.mkdir(parents=True, exist_ok=True))
    if resource.series_uid:
        _fetch_series(server, resource, folder)
        return
    for series in find_series(server, resource):
        _fetch_series(server, resource.series(series.uid), folder)


def _fetch_series(server: Server, series: Resource, folder: Path) -> None:
    listed = find_instances(server, series)
    there = {one.uid for one in listed if (folder / f"{one.uid}{_SUFFIX}").exists()}
    for _ in receive(server, series, listed, folder, leave_out=there):
        pass


def receive(
    server: Server,
    series: Resource,
    listed: Sequence[InstanceFound],
    folder: Path,
    leave_out: Collection[str] = (),
) -> Iterator[Fetched]:
    """Fetch instances of a series, the whole of it in one request if it may be.

    Parameters
    ----------
    server : Server
        Where they are.
    series : Resource
        The series, or the instance, that they are of.
    listed : sequence of InstanceFound
        All that there is of it.
    folder : pathlib.Path
        Gets the files; whoever takes one may move it away.
    leave_out : collection of str
        SOP Instance UIDs that are not wanted.

    Yields
    ------
    Fetched
        As each is on disk.

    Raises
    ------
    WebError
        If one cannot be had; those before it are good.
    OutputNotWritableError
        If the folder cannot be written.
    """
    left = {one.uid: one for one in listed if one.uid not in leave_out}
    budget = _Budget(server, series)
    # After the first answer, whatever it brought, each that is missing is asked for by itself.
    target = series if len(left) == len(listed) else None
    n_failures = 0
    while left:
        asked = target or series.instance(next(iter(left)))
        n_before = len(left)
        try:
            with server.retrieve(asked.path) as answer:
                for body in read_parts(answer):
                    path = _write(folder, body, budget)
                    yield _accept(path, asked, left, server)
        except WebUnavailableError as error:
            n_failures = 1 if len(left) < n_before else n_failures + 1
            server.wait_after(error, n_failures)
            target = target if len(left) == len(listed) else None
        else:
            if target is None and len(left) == n_before:
                raise WebAnswerError(
                    f"The server lists instance {asked.instance_uid} and does not send it; ask "
                    "whoever runs it."
                )
            target, n_failures = None, 0


class _Budget:
    """How much more of a series is taken."""

    def __init__(self, server: Server, series: Resource) -> None:
        self._limits = server.limits
        self._left = server.limits.series_bytes
        self._series = series

    def take(self, n_bytes: int, of_instance: int) -> None:
        self._left -= n_bytes
        if of_instance > self._limits.instance_bytes:
            limit, what = self._limits.instance_bytes, "An instance of series"
        elif self._left < 0:
            limit, what = self._limits.series_bytes, "Series"
        else:
            return
        raise WebAnswerError(
            f"{what} {self._series.series_uid} is larger than {limit / 1e6:g} MB; it is not taken."
        )


def _write(folder: Path, body: Body, budget: _Budget) -> Path:
    """Write a part to a file of a new name; nothing is left of one that does not come whole."""
    path = folder / f"{secrets.token_hex(8)}{_TEMPORARY}"
    file = _writing(folder, lambda: path.open("xb"))
    n_bytes = 0
    try:
        with file:
            for block in body:
                n_bytes += len(block)
                budget.take(len(block), n_bytes)
                _writing(folder, lambda block=block: file.write(block))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _accept(path: Path, asked: Resource, left: dict[str, InstanceFound], server: Server) -> Fetched:
    """Give a file its name if it is one of those that are wanted."""
    try:
        found = identify(path, asked, server.limits.instance_bytes)
        wanted = left.get(found.uid)
        if wanted is None or asked.instance_uid not in ("", found.uid):
            raise WebAnswerError(
                f"The server sends instance {found.uid}, which was not asked for, or twice; use "
                "another server."
            )
        if wanted.sop_class not in ("", found.sop_class):
            raise WebAnswerError(
                f"The server lists instance {found.uid} as of another SOP class than it is; use "
                "another server."
            )
        target = path.with_name(f"{found.uid}{_SUFFIX}")
        _writing(path.parent, lambda: path.replace(target))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    del left[found.uid]
    return Fetched(target, found.uid, found.sop_class)


def _writing(folder: Path, do: Callable[[], Result]) -> Result:
    try:
        return do()
    except OSError as error:
        raise OutputNotWritableError(
            f"{folder} cannot be written ({error.strerror or error}); free space, or choose "
            "another folder."
        ) from error

"""Reader processes: what happens in one stays in it."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import bombs
import numpy as np
import pytest
from batches import write_volume
from fakes import VoxelEncoder, voxels_of

from oncofm.errors import BatchError
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.volume_file import VolumeFile
from oncofm.seeds.table import seed_table
from oncofm.workflow.batch import readers as readers_module
from oncofm.workflow.batch.compute import compute_items
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.reader import ItemEnd, ItemFailed
from oncofm.workflow.batch.readers import Readers
from oncofm.workflow.batch.usage import ItemUsage, ReaderUsage
from oncofm.workflow.settings import Settings

PATCH_BYTES = 50**3 * 4


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("volume") / "v.mha")


def points(volume, n_seeds):
    positions = np.random.default_rng(n_seeds).uniform(-25, 25, (n_seeds, 3))
    columns = dict(zip(("coordX", "coordY", "coordZ"), positions.T.tolist(), strict=True))
    return seed_table(Path("table"), {"image_path": [str(volume)] * n_seeds, **columns})


def good(position, volume, n_seeds=2):
    return Item(position, f"good-{position}", "", (volume,), points(volume, n_seeds))


def bad(position, kind, tmp_path, *more):
    return Item(position, f"bad-{position}", "", (kind(tmp_path), *more))


def check(outcome, item):
    (case,) = outcome.outcomes
    volume = VolumeFile(item.paths[-1])
    for lesion, seed in zip(case.lesions, item.seeds.seeds, strict=True):
        patch = sample_patch(volume, seed.position_mm, PatchSpec())
        np.testing.assert_array_equal(lesion.features, voxels_of(patch.voxels[None])[0])


def children():
    """Process ids of the readers that this process has now."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if is_reader(folder)]


def is_reader(folder):
    try:
        parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
        command = (folder / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return False
    return int(parent) == os.getpid() and b"spawn_main" in command


@pytest.fixture
def clocks(monkeypatch):
    """The clocks of items; but for that of the first, none runs down on however slow a machine."""
    made = []

    class Clock(readers_module._ItemClock):
        n_held_up = 0

        def __init__(self, limit_s, process):
            super().__init__(600.0 if made else limit_s, process)
            self.made_at = time.monotonic()
            made.append(self)

        @contextmanager
        def held_up(self):
            with super().held_up():
                self.n_held_up += 1
                yield

    monkeypatch.setattr(readers_module, "_ItemClock", Clock)
    return made


def wait_until(is_so):
    end = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_crash_takes_down_its_item_and_nothing_else(volume, tmp_path):
    kinds = [bombs.Exits, bombs.Crashes, bombs.Raises, bombs.RunsOutOfMemory]
    kinds.append(bombs.DiesInMidMessage)
    items = []
    for kind in kinds:
        items.append(good(len(items), volume))
        more = (volume,) if kind is bombs.DiesInMidMessage else ()
        items.append(bad(len(items), kind, tmp_path, *more))
    last = items[-1]
    items[-1] = Item(last.position, last.item_id, "", last.paths, points(volume, 100))
    items.append(good(len(items), volume))
    slow = VoxelEncoder()
    with Readers(items, Settings(), n_processes=2) as readers:
        found = {}
        for outcome in compute_items(readers.messages(), lambda: slow):
            assert outcome.position not in found
            found[outcome.position] = outcome
    assert found.keys() == {item.position for item in items}
    for item in items[::2]:
        check(found[item.position], item)
    failures = [found[item.position].failure for item in items[1::2]]
    assert [(f.reason, f.message) for f in failures] == [
        ("reader_crashed", says(1, 7)),
        ("reader_crashed", says(3, -signal.SIGSEGV)),
        ("reading_failed", "Item bad-5 failed while reading (RuntimeError)."),
        ("reading_failed", "Item bad-7 failed while reading (MemoryError)."),
        ("reader_crashed", says(9, 9)),
    ]
    assert found[9].outcomes, "it died before it had sent a chunk"
    assert children() == []


def says(number, code):
    return (
        f"The process that read item bad-{number} ended with code {int(code)}; one of its files "
        "may crash the decoder."
    )


def test_an_item_that_takes_too_long(volume, tmp_path, clocks):
    items = [bad(0, bombs.Hangs, tmp_path), good(1, volume)]
    with Readers(items, Settings(), n_processes=1, time_limit_s=3.0) as readers:
        messages = list(readers.messages())
    assert clocks[1].made_at - clocks[0].made_at < 300
    failed = messages[0]
    assert isinstance(failed, ItemFailed)
    assert (failed.position, failed.reason) == (0, "time_limit")
    assert failed.message == (
        "Item bad-0 took longer than 3 s to read; look at its files, or allow more with "
        "--time-limit."
    )
    assert isinstance(messages[-1], ItemEnd)
    assert messages[-1].position == 1


def stop_in_mid_message(messages):
    """Wait until the one process does nothing, because nobody takes what it says; stop it there."""
    first = next(messages)
    (pid,) = children()
    n_idle = 0
    while n_idle < 15:
        time.sleep(0.02)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        n_idle = n_idle + 1 if state == "S" else 0
    os.kill(pid, signal.SIGSTOP)
    return first


def test_a_process_that_stops_in_the_middle_of_a_message(volume, clocks):
    items = [good(0, volume, 300), good(1, volume)]
    with Readers(items, Settings(), n_processes=1) as readers:
        messages = readers.messages()
        seen = [stop_in_mid_message(messages)]
        wait_until(lambda: clocks[0].n_held_up == 3)
        clocks[0]._left_s = 1.0
        started = time.monotonic()
        seen += messages
    assert clocks[1].made_at - started < 300
    (failed,) = [message for message in seen if isinstance(message, ItemFailed)]
    assert (failed.position, failed.reason) == (0, "time_limit")
    assert isinstance(seen[-1], ItemEnd)
    assert seen[-1].position == 1
    assert children() == []


def test_who_leaves_does_not_wait_for_a_process_that_is_stopped(volume):
    with Readers([good(0, volume, 300)], Settings(), n_processes=1) as readers:
        messages = readers.messages()
        stop_in_mid_message(messages)
        started = time.monotonic()
        next(messages), next(messages)
    assert time.monotonic() - started < 300
    assert children() == []


def test_what_readers_have_used(volume, tmp_path, clocks):
    items = [good(0, volume, 40), bad(1, bombs.Exits, tmp_path)]
    with Readers(items, Settings(), n_processes=1) as readers:
        messages = readers.messages()
        next(messages)
        wait_until(lambda: clocks[0].n_held_up == 3)  # it has a chunk more, and its end
        time.sleep(0.3)
        list(messages)
    usage = readers.usage.snapshot()
    assert usage.reading_s > 0
    assert usage.held_up_s > 0.2
    assert usage.bytes_read >= volume.stat().st_size
    assert 50 < usage.peak_memory_mib < 2000
    assert {item for item, _ in usage.slowest} == {"good-0", "bad-1"}
    assert sum(seconds for _, seconds in usage.slowest) == pytest.approx(usage.reading_s)


def test_the_slowest_are_kept():
    usage = ReaderUsage()
    for number in range(100):
        usage.add([ItemUsage(f"item-{number}", float(number * 37 % 100), 0.0)])
    found = usage.snapshot()
    assert [seconds for _, seconds in found.slowest] == [99.0 - n for n in range(10)]
    assert (found.bytes_read, found.peak_memory_mib) == (None, None)


@pytest.mark.slow
def test_nobody_runs_ahead_of_who_takes_the_messages(volume):
    """3000 lesions are 1.5 GB of patches; a few chunks of 16 MB may be under way."""
    with Readers([good(0, volume, 3000)], Settings(), n_processes=1) as readers:
        messages = readers.messages()
        assert len(next(messages).lesions) == 32
        before = resident_bytes()
        time.sleep(3)
        assert resident_bytes() - before < 4 * 32 * PATCH_BYTES
        (reader,) = children()
        assert resident_bytes(reader) < 500e6
        assert len(next(messages).lesions) == 32


def test_waiting_for_who_takes_the_messages_is_no_time_of_the_item(volume, clocks):
    with Readers([good(0, volume, 100)], Settings(), n_processes=1) as readers:
        messages = readers.messages()
        seen = [next(messages)]
        wait_until(lambda: clocks[0].n_held_up == 3)
        alarms = [getattr(thread, "function", None) for thread in threading.enumerate()]
        assert clocks[0]._kill not in alarms
        time.sleep(1)
        seen += messages
    assert isinstance(seen[-1], ItemEnd)
    assert sum(len(message.lesions) for message in seen[:-1]) == 100
    usage = readers.usage.snapshot()
    assert usage.held_up_s >= 1
    assert usage.reading_s + usage.held_up_s <= time.monotonic() - clocks[0].made_at


def resident_bytes(pid="self"):
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_ended_early_leaves_no_process(volume):
    with Readers([good(n, volume, 500) for n in range(5)], Settings()) as readers:
        next(readers.messages())
        assert children()
    assert children() == []
    assert not [t for t in threading.enumerate() if t.name.startswith("reader-")]


def test_items_that_end_early_end_the_messages(volume):
    ends: list[ItemEnd] = []
    items = takewhile(lambda _: not ends, (good(n, volume) for n in range(1000)))
    with Readers(items, Settings(), n_processes=1) as readers:
        for message in readers.messages():
            if isinstance(message, ItemEnd):
                ends.append(message)
    assert 1 <= len(ends) <= 3


@pytest.mark.slow
def test_a_signal_to_all_processes_reaches_none_of_the_readers(volume):
    with Readers([good(n, volume, 40) for n in range(3)], Settings(), n_processes=1) as readers:
        messages = readers.messages()
        seen = [next(messages)]
        for pid in children():
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        seen += messages
    assert not [message for message in seen if isinstance(message, ItemFailed)]
    assert sum(isinstance(message, ItemEnd) for message in seen) == 3


def test_a_process_that_cannot_begin(volume, monkeypatch):
    monkeypatch.setattr(readers_module, "serve", exits_at_once)
    with (
        Readers([good(0, volume)], Settings()) as readers,
        pytest.raises(BatchError, match=r"A reader process ended with code 3 before it could"),
    ):
        list(readers.messages())


def exits_at_once(*_):
    os._exit(3)


def test_what_goes_wrong_with_the_list_of_items_is_raised(volume):
    def items():
        yield good(0, volume)
        raise OSError("the list ends here")

    with (
        Readers(items(), Settings(), n_processes=1) as readers,
        pytest.raises(OSError, match="the list ends here"),
    ):
        list(readers.messages())

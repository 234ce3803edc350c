"""Shared memory that is gone when its owner is, however that ended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from clara_wf.kserve.shared_memory import FOLDER, PREFIX, Region, SharedMemoryLacking, is_orphan, sweep

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="this system has no shared memory"),
    # What these sweep away, others may be looking for.
    pytest.mark.xdist_group("trtis"),
]

#: A program with a region, which says the region's name and then does what a test wants.
PROGRAM = """
import os, signal, sys, time
from clara_wf.kserve.shared_memory import Region
region = Region(1000)
print(region.name, flush=True)
{}
"""


def program(root, work):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work)],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_what_is_written_is_what_another_sees():
    region = Region(4 * 6)
    try:
        region.array((1, 2, 3))[...] = np.arange(6).reshape(1, 2, 3)
        path = FOLDER / region.name
        assert np.array_equal(np.fromfile(path, np.float32), np.arange(6))
        assert path.stat().st_mode & 0o777 == 0o600
        assert region.key == f"/{region.name}"
        assert region.name.startswith(PREFIX)
        assert not is_orphan(region.key)
    finally:
        region.close()
    assert not path.exists()
    assert is_orphan(region.key)
    region.close()  # again


def test_who_still_holds_an_array_keeps_what_is_in_it():
    region = Region(400)
    held = region.array((100,))
    held[...] = 7
    region.close()
    assert held.sum() == 700
    with pytest.raises(ValueError, match="closed"):
        region.array((100,))


def test_memory_is_there_when_it_is_promised():
    """A page that is missing when it is written to would end the process."""
    region = Region(3 * 2**20)
    try:
        assert (FOLDER / region.name).stat().st_blocks * 512 >= region.size
    finally:
        region.close()


def test_more_than_there_is_leaves_nothing():
    before = set(FOLDER.glob(f"{PREFIX}*"))
    size = os.statvfs(FOLDER)
    with pytest.raises(SharedMemoryLacking, match="no room for"):
        Region(2 * size.f_blocks * size.f_frsize)
    assert set(FOLDER.glob(f"{PREFIX}*")) <= before


def test_a_sweep_leaves_alone_what_lives(root):
    region = Region(100)
    with program(root, "time.sleep(60)") as other:
        try:
            name = other.stdout.readline().strip()
            sweep()
            assert (FOLDER / region.name).exists()
            assert (FOLDER / name).exists()
        finally:
            other.kill()
            region.close()
    sweep()
    assert not (FOLDER / name).exists()


def test_a_sweep_leaves_alone_what_is_not_ours():
    path = FOLDER / f"another-{os.getpid()}"
    path.touch()
    try:
        sweep()
        assert path.exists()
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "work",
    [
        "",
        "raise ValueError",
        "sys.exit(3)",
        "signal.signal(signal.SIGTERM, signal.default_int_handler); signal.raise_signal(signal.SIGTERM)",
    ],
    ids=["end", "error", "exit", "SIGTERM"],
)
def test_nothing_is_left(root, work):
    with program(root, work) as other:
        name = other.stdout.readline().strip()
        other.wait(30)
    assert name.startswith(PREFIX)
    assert not (FOLDER / name).exists()


def test_what_a_killed_owner_leaves_is_swept(root):
    with program(root, "os.kill(os.getpid(), signal.SIGKILL)") as other:
        name = other.stdout.readline().strip()
        assert other.wait(30) == -signal.SIGKILL
    assert (FOLDER / name).exists()
    sweep()
    assert not (FOLDER / name).exists()


def test_a_file_that_is_not_locked_yet_may_be_swept_and_is_made_anew(monkeypatch):
    """Between creating and locking, a region looks like one without an owner."""
    swept = []
    lock = fcntl.flock

    def late(descriptor, operation):
        if not swept and operation == fcntl.LOCK_EX:
            swept.append(True)
            thread = threading.Thread(target=sweep)
            thread.start()
            thread.join()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    region = Region(100)
    try:
        assert swept
        sweep()
        assert (FOLDER / region.name).exists()
    finally:
        region.close()


def test_many_at_once_and_a_sweeper_among_them():
    faults = []

    def make():
        for _ in range(50):
            region = Region(4096)
            if not (FOLDER / region.name).exists():
                faults.append(region.name)
            region.close()

    threads = [threading.Thread(target=work) for work in (make, make, make)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sweep()
    assert not faults


def test_no_room_in_a_process_with_a_limit(root):
    """As on a system whose memory is full."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from clara_wf.kserve.shared_memory import Region, SharedMemoryLacking\n"
        "try: Region(5000)\n"
        "except SharedMemoryLacking as fault: print(fault)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "has no room for 1 MiB: File too large" in done.stdout

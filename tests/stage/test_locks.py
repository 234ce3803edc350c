"""Locks appear whole, say one thing, and pass a failure on at once."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clara_wf.model.errors import StageTimeout, UpstreamFailed
from clara_wf.model.files import UNFINISHED, replacing
from clara_wf.model.locks import MOST_BYTES, Lock, wait_for


def test_a_lock_says_again_what_was_written(tmp_path):
    lock = Lock(stage="a", state="failed", message="Größe «0»\nzwei", started="s", ended="e", image="i:1")
    lock.write(tmp_path / "new" / "a.lock")
    assert Lock.read(tmp_path / "new" / "a.lock") == lock
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.lock"]


def test_the_first_word_counts(tmp_path):
    path = tmp_path / "a.lock"
    Lock(stage="a", state="failed", message="first").write(path)
    Lock(stage="a", state="completed").write(path)
    assert Lock.read(path).message == "first"


@pytest.mark.parametrize("runner_first", [False, True])
def test_of_two_that_speak_at_once_exactly_one_is_heard(tmp_path, runner_first):
    """Who looked at the lock after the first word never sees another one."""
    words = [Lock(stage="a", state="completed"), Lock(stage="a", state="failed", message="ended by the runner")]
    rounds = 150
    barrier = threading.Barrier(2)

    def speak(word: Lock) -> list[Lock | None]:
        heard = []
        for number in range(rounds):
            path = tmp_path / f"{number}.lock"
            barrier.wait(timeout=60)
            word.write(path)
            heard.append(Lock.read(path))
        return heard

    with ThreadPoolExecutor(2) as pool:
        heard = list(pool.map(speak, reversed(words) if runner_first else words))
    assert heard[0] == heard[1] == [Lock.read(tmp_path / f"{number}.lock") for number in range(rounds)]
    assert all(word in words for word in heard[0])
    assert len(list(tmp_path.iterdir())) == rounds


def test_the_first_word_counts_where_the_file_system_has_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.lock"
    Lock(stage="a", state="failed", message="first").write(path)
    Lock(stage="a", state="completed").write(path)
    assert Lock.read(path).message == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.lock"]


def test_a_reader_never_sees_a_part(tmp_path):
    """Many locks are written while others look at them as often as they can."""
    paths = [tmp_path / f"{n}.lock" for n in range(40)]
    message = "x" * 50_000
    done = threading.Event()
    wrong: list[object] = []

    def look() -> int:
        seen = 0
        while not done.is_set():
            for path in paths:
                lock = Lock.read(path)
                if lock is not None:
                    seen += 1
                    # A part of the JSON would be read as the bare lock of another program.
                    if lock.message != message:
                        wrong.append(lock)
        return seen

    with ThreadPoolExecutor(3) as pool:
        looks = [pool.submit(look) for _ in range(2)]
        try:
            for path in paths:
                Lock(stage=path.stem, state="completed", message=message).write(path)
        finally:
            done.set()
    assert sum(each.result() for each in looks) > 0
    assert not wrong


@pytest.mark.parametrize(
    "content", [b"", b"done", b"[]", b"null", b'{"state"', b'{"stage": "x"}', b"\xff\xfe", b"[" * 60_000]
)
def test_a_foreign_lock_counts_by_being_there(tmp_path, content):
    (tmp_path / "reader.lock").write_bytes(content)
    lock = Lock.read(tmp_path / "reader.lock")
    assert (lock.stage, lock.state) == ("reader", "completed")


@pytest.fixture(params=["link", "broken link", "loop", "pipe", "folder", "socket", "flood"])
def planted(request, tmp_path, monkeypatch):
    """Put something in a lock's place that is no lock."""
    path = tmp_path / "reader.lock"
    match request.param:
        case "link":
            Lock(stage="other", state="completed").write(tmp_path / "other" / "other.lock")
            path.symlink_to(tmp_path / "other" / "other.lock")
        case "broken link":
            path.symlink_to(tmp_path / "nowhere")
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            monkeypatch.chdir(tmp_path)  # the name of a socket is bounded
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        case "flood":
            path.write_bytes(b" " * 2 * MOST_BYTES)
    return path


def test_what_is_no_file_of_a_locks_size_says_that_the_stage_failed(planted):
    lock = Lock.read(planted)
    assert (lock.stage, lock.state) == ("reader", "failed")
    assert "regular file" in lock.message or "larger than 64 KiB" in lock.message
    with pytest.raises(UpstreamFailed, match=r"upstream stage reader failed: (what it left|its lock is)"):
        wait_for(planted, timeout=60)


def test_no_word_is_written_over_or_through_what_lies_there(planted, tmp_path):
    Lock(stage="reader", state="completed").write(planted)
    assert Lock.read(planted).state == "failed"
    assert not (tmp_path / "nowhere").exists()


def test_an_endless_message_does_not_make_a_lock_that_is_too_large(tmp_path):
    Lock(stage="a", state="failed", message="\N{PILE OF POO}" * 100_000).write(tmp_path / "a.lock")
    lock = Lock.read(tmp_path / "a.lock")
    assert (lock.stage, lock.state) == ("a", "failed")
    assert lock.message.startswith("\N{PILE OF POO}" * 100)


def test_a_lock_is_written_as_it_was_opened_not_by_its_name(tmp_path, monkeypatch):
    """Whoever may write to the folder of the locks can put a link in the place of the unfinished file."""
    precious = tmp_path / "precious"
    precious.write_text("of the host")
    folder = tmp_path / "locks"
    folder.mkdir()
    opened = os.open

    def open_and_swap(path, *arguments, **options):
        handle = opened(path, *arguments, **options)
        if UNFINISHED in os.fspath(path):
            Path(path).unlink()
            Path(path).symlink_to(precious)
        return handle

    monkeypatch.setattr(os, "open", open_and_swap)
    Lock(stage="a", state="failed").write(folder / "a.lock")
    monkeypatch.undo()
    assert precious.read_text() == "of the host"
    assert Lock.read(folder / "a.lock").message == "what it left for a lock is no regular file"


def test_waiting_ends_when_the_lock_appears(tmp_path):
    path = tmp_path / "a.lock"
    timer = threading.Timer(0.1, Lock(stage="a", state="completed").write, [path])
    timer.start()
    assert wait_for(path, timeout=20).stage == "a"
    timer.join()


def test_waiting_has_a_time_out(tmp_path):
    with pytest.raises(StageTimeout, match=r"waited 0\.1 s for the lock a\.lock, which did not appear"):
        wait_for(tmp_path / "a.lock", timeout=0.1)


def test_a_failure_ends_the_waiting_at_once_and_the_first_is_named(tmp_path):
    Lock(stage="reader", state="failed", message="bad slices").write(tmp_path / "reader.lock")
    start = time.monotonic()
    with pytest.raises(UpstreamFailed) as first:
        wait_for(tmp_path / "reader.lock", timeout=60)
    assert time.monotonic() - start < 30
    assert str(first.value) == "upstream stage reader failed: bad slices"
    Lock(stage="vnet", state="failed", message=str(first.value)).write(tmp_path / "vnet.lock")
    with pytest.raises(UpstreamFailed) as second:
        wait_for(tmp_path / "vnet.lock", timeout=60)
    assert str(second.value) == str(first.value)


def test_a_broken_replacement_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.mhd"
    path.write_text("old")

    def replace_badly():
        with replacing(path) as temporary:
            assert temporary.name.startswith(UNFINISHED)
            assert temporary.suffix == ".mhd"
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_badly()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mhd"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "common").write_text("")
    with replacing(tmp_path / "new") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "common").stat().st_mode

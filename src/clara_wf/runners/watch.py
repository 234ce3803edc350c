"""What a run waits on: the stages' output, their ends, and a call to wake up."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from typing import BinaryIO, cast

from clara_wf.runners import guardian


class Watch:
    """Waits for many things at once, and keeps the guardian informed."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._ear, self._bell = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._bell, False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._handles: dict[int, int] = {}  # process id -> its descriptor
        self._guardian: subprocess.Popen[bytes] | None = None

    def wake(self) -> None:
        """End the waiting. May be called from a signal handler or another thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._bell, b"!")

    def guard(self, mark: str, removal: guardian.Removal | None) -> None:
        """Start the guardian, which ends the stages if this process is killed."""
        self.started = time.monotonic()
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, mark, *(removal.words() if removal is not None else ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def add(self, stage: str, pid: int, streams: dict[str, int]) -> None:
        """Watch a stage that was just started."""
        self._tell(f"+{pid}")
        for name, descriptor in streams.items():
            self._selector.register(descriptor, selectors.EVENT_READ, (stage, name))
        if hasattr(os, "pidfd_open"):  # Linux; elsewhere its end is seen at the next tick
            self._handles[pid] = os.pidfd_open(pid)
            self._selector.register(self._handles[pid], selectors.EVENT_READ, (stage, ""))

    def forget_stream(self, descriptor: int) -> None:
        """Stop watching a stream that has ended."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)

    def forget(self, pid: int) -> None:
        """Stop watching a process that has ended."""
        self._tell(f"-{pid}")
        handle = self._handles.pop(pid, None)
        if handle is not None:
            self._selector.unregister(handle)
            os.close(handle)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until something happened; return to which stage, and on which stream (empty: the stage's end)."""
        happened: list[tuple[str, str]] = []
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._ear, 4096)
            else:
                happened.append(key.data)
        return happened

    def _tell(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):  # a guardian that somebody killed is no reason to stop
                stdin = cast("BinaryIO", self._guardian.stdin)
                stdin.write(line.encode() + b"\n")
                stdin.flush()

    def close(self) -> None:
        """Let the guardian go, and close everything."""
        self._tell("bye")
        if self._guardian is not None:
            with contextlib.suppress(OSError):
                self._guardian.communicate()
        for handle in self._handles.values():
            os.close(handle)
        self._selector.close()
        os.close(self._ear)
        os.close(self._bell)

"""Signals that end the program: all of them are taken for Ctrl-C, so that what is under way is cleared up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Take SIGTERM and the end of the terminal for Ctrl-C.

    For the main thread of a program.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, _ENDING):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and the end of the terminal wait for the end of the block."""
    caught: list[int] = []
    with _handled(lambda number, _frame: caught.append(number), (signal.SIGINT, *_ENDING)):
        yield
    for number in caught[:1]:
        signal.raise_signal(number)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and the end of the terminal end the program at once.

    For a long wait within a library, for which Python would keep a signal back, and after which nothing is to clear up.
    """
    with _handled(signal.SIG_DFL, _ENDING):
        yield


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, object], None] | signal.Handlers, numbers: Sequence[signal.Signals]
) -> Iterator[None]:
    # A program under nohup ignores SIGHUP, and goes on doing so.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)

"""What every runner is: a plan in, events out, and a way to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from clara_wf.model.events import Event
from clara_wf.model.job import Job
from clara_wf.model.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a runner can do; whoever needs it asks here, never for the class."""

    ends_stages: bool  # a stage that hangs or is canceled is ended by force
    follows_links: bool = True  # a stage sees what a link in its input leads to, wherever on this machine that lies


class Run(Protocol):
    """One job being carried out: a context manager, and an iterator of events of which the last is a `JobEnded`.

    The stages start with the first event that is asked for. Whatever ends the `with` block early (an error of the
    reader, Ctrl-C) ends every stage, records the job as canceled, and only then lets go.
    """

    @property
    def job(self) -> Job:
        """The job as it stands."""

    def cancel(self) -> None:
        """Ask the job to end; a second call does not wait for stages that take their time.

        Returns at once and may be called from a signal handler or another thread: the events go on, to `JobEnded`.
        """

    def __enter__(self) -> Self:
        """Check the plan and take the payload.

        Raises
        ------
        ClaraError
            This runner cannot carry out the plan, or the job is still running. Nothing was changed.
        """

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left."""

    def __iter__(self) -> Iterator[Event]:
        """Carry out the plan."""


class Runner(Protocol):
    """Carries out plans."""

    @property
    def capabilities(self) -> Capabilities:
        """What this runner can do."""

    def run(self, plan: Plan) -> Run:
        """Give the run of a plan, which has not started yet."""


@contextlib.contextmanager
def canceling_on_signals(run: Run) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and the end of the terminal into `run.cancel()`. For the main thread of a program.

    No KeyboardInterrupt is raised within the block, so the reader of the events sees the job end in order.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A program under nohup ignores SIGHUP, and goes on doing so.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda _number, _frame: run.cancel())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

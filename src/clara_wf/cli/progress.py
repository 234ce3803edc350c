"""Showing the events of a run: bars in a terminal, lines in a log, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Protocol, Self

from clara_wf.cli.terminal import remark, remarks
from clara_wf.model.events import (
    Event,
    JobEnded,
    JobLogged,
    StageEnded,
    StageLogged,
    StageProgress,
    StageWaiting,
    StageWorking,
)
from clara_wf.model.job import StageRecord
from clara_wf.model.locks import UPSTREAM_FAILED
from clara_wf.model.states import StageState

#: A plain log gets a progress line of a stage at most this often, in seconds.
_PLAIN_EVERY = 5.0
#: How a stage's state reads in a bar.
_SIGNS = {StageState.COMPLETED: "[green]done[/]", StageState.CANCELED: "[yellow]canceled[/]"}


class Display(Protocol):
    """Something that shows events, used as a context manager."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what was shown stays."""

    def show(self, event: Event) -> None:
        """Show one event."""


class _Lines:
    """Something that prints as it is told: there is nothing to begin or to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Plain(_Lines):
    """A line for each thing that happens."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def show(self, event: Event) -> None:
        text = self._text(event)
        if text:
            remark(text)

    def _text(self, event: Event) -> str:
        text = ""
        match event:
            case StageWorking(stage=stage):
                text = f"{stage}: working"
            case StageProgress(stage=stage, fraction=fraction, message=message) if self._is_due(stage):
                text = f"{stage}: {fraction:4.0%} {message}".rstrip()
            case StageLogged(stage=stage, level=level, message=message) if level in {"WARNING", "ERROR"}:
                text = f"{stage}: {level.lower()}: {message}"
            case JobLogged(message=message):
                text = message
            case StageEnded(record=record):
                text = f"{record.name}: {_ending(record)}"
            case _:
                pass
        return text

    def _is_due(self, stage: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(stage, 0.0) < _PLAIN_EVERY:
            return False
        self._last[stage] = now
        return True


class _Bars:
    """A bar for each stage, redrawn in place; warnings stay above them."""

    def __init__(self, stages: Sequence[str]) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.fields[stage]}", table_column=Column(no_wrap=True)),
            # It turns while a network computes, which tells nothing until it is done.
            SpinnerColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=remarks(),
            expand=True,
        )
        width = max(map(len, stages), default=0)
        self._tasks = {
            stage: self._progress.add_task("", stage=stage.ljust(width), total=1.0, start=False) for stage in stages
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        from rich.markup import escape

        match event:
            case StageWaiting(stage=stage):
                self._progress.update(self._tasks[stage], description="[dim]waiting[/]")
            case StageWorking(stage=stage):
                self._progress.start_task(self._tasks[stage])
                self._progress.update(self._tasks[stage], description="working")
            case StageProgress(stage=stage, fraction=fraction, message=message):
                self._progress.update(self._tasks[stage], completed=fraction, description=escape(message))
            case StageLogged(stage=stage, level=level, message=message) if level in {"WARNING", "ERROR"}:
                color = "yellow" if level == "WARNING" else "red"
                self._progress.console.print(f"[{color}]{stage}: {escape(message)}[/]")
            case JobLogged(level=level, message=message):
                self._progress.console.print(f"[{'yellow' if level == 'WARNING' else 'dim'}]{escape(message)}[/]")
            case StageEnded(record=record):
                self._end(record)
            case _:
                pass

    def _end(self, record: StageRecord) -> None:
        task = self._tasks[record.name]
        self._progress.stop_task(task)
        failed = "[dim]not run[/]" if record.message.startswith(UPSTREAM_FAILED) else "[red]failed[/]"
        sign = _SIGNS.get(record.state, failed)
        if record.state is StageState.COMPLETED:
            self._progress.update(task, completed=1.0)
        self._progress.update(task, description=f"{sign} [dim]{_figures(record)}[/]")


class _JsonLines(_Lines):
    """One JSON object a line, on standard output."""

    def show(self, event: Event) -> None:
        # The end of the job is printed together with its result, by whoever has that.
        if not isinstance(event, JobEnded):
            print(json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False), flush=True)


def display(stages: Sequence[str], *, as_json: bool) -> Display:
    """Choose how to show a run of these stages."""
    if as_json:
        return _JsonLines()
    if remarks().is_terminal:
        return _Bars(stages)
    return _Plain()


def _ending(record: StageRecord) -> str:
    if record.message.startswith(UPSTREAM_FAILED):
        return "not run"
    figures = _figures(record)
    text = str(record.state)
    if record.message and record.message != text:
        text += f": {record.message}"
    return f"{text} ({figures})" if figures else text


def _figures(record: StageRecord) -> str:
    parts = []
    if record.work_s is not None:
        parts.append(f"{record.work_s:.1f} s")
    if record.cpu_s is not None:
        parts.append(f"CPU {record.cpu_s:.1f} s")
    if record.peak_bytes is not None:
        parts.append(f"peak {record.peak_bytes / 2**20:,.0f} MiB")
    return ", ".join(parts)

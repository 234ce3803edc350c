"""What the command line prints with: one console for results, one for what is said beside them."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # what only prints a line does without
    from rich.console import Console
    from rich.segment import Segment

#: Columns of a table that is not shown in a terminal.
_PIPE_WIDTH = 250

#: The option that every command with a result has.
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


#: What a terminal would obey, or turn the text around by; lines and tabs are meant.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def print_anything() -> None:
    """Have what standard output and error cannot encode spelled out, such as a folder's name that is no UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """Return a text in which what would command a terminal is spelled out, such as an escape."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


@cache
def results() -> Console:
    """Return the console for results: standard output."""
    console = _console(highlight=False)
    # A program that reads a table wants its rows whole.
    return console if console.is_terminal else _console(highlight=False, width=_PIPE_WIDTH)


@cache
def remarks() -> Console:
    """Return the console for what is said beside a result: standard error."""
    return _console(stderr=True, highlight=False, soft_wrap=True)


def _console(**options: Any) -> Console:  # noqa: ANN401 - whatever a console takes
    """Make a console that lets no text command the terminal, wherever in a table it stands."""
    from rich.console import Console
    from rich.segment import Segment

    class Guarded(Console):
        def _render_buffer(self, buffer: Iterable[Segment]) -> str:
            # The console's own commands are segments of another kind; colours are added from here on.
            return super()._render_buffer(
                segment if segment.control else Segment(visible(segment.text), segment.style) for segment in buffer
            )

    return Guarded(**options)


def print_json(content: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print one JSON value, indented."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    # JSON spells out the rest by itself.
    print(re.sub(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]", lambda found: f"\\u{ord(found[0]):04x}", text))


def show(text: str) -> None:
    """Print a line of a result."""
    print(visible(text))


def remark(text: str) -> None:
    """Say something that is no result; a program that reads standard output does not see it."""
    print(visible(text), file=sys.stderr, flush=True)


def report_error(text: str) -> None:
    """Print an error, in one line."""
    if sys.stderr.isatty():
        remarks().print(f"[bold red]error:[/] {_escaped(text)}")
    else:
        remark(f"error: {text}")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)

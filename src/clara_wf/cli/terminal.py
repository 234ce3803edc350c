"""What the command line prints with: one console for results, one for what is said beside them."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a table that is not shown in a terminal.
_PIPE_WIDTH = 250

#: The option that every command with a result has.
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@cache
def results() -> Console:
    """Return the console for results: standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    # A program that reads a table wants its rows whole.
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


@cache
def remarks() -> Console:
    """Return the console for what is said beside a result: standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(content: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print one JSON value, indented."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def remark(text: str) -> None:
    """Say something that is no result; a program that reads standard output does not see it."""
    print(text, file=sys.stderr, flush=True)


def report_error(text: str) -> None:
    """Print an error, in one line."""
    if sys.stderr.isatty():
        remarks().print(f"[bold red]error:[/] {_escaped(text)}")
    else:
        remark(f"error: {text}")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)

"""Leaving out of an image what no stage uses: files by pattern, and the symbols of libraries."""

from __future__ import annotations

import fnmatch
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: These stay whatever a list says: who passes a program on passes on its licence.
_LICENCE = re.compile(r"(^|/)(licen[cs]e|licens(es|ing)/|copying|notice|authors|[^/]*third.party)[^/]*", re.IGNORECASE)
_ELF = b"\x7fELF"
_LOAD_SEGMENT = 1


def read_patterns(file: Path) -> tuple[str, ...]:
    """Return the patterns of a list: one a line; `*` matches `/` too. What follows a `#` is for people."""
    if not file.exists():
        return ()
    lines = (line.split("#", 1)[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(filter(None, lines))


def prune(folder: Path, patterns: Sequence[str]) -> tuple[str, ...]:
    """Remove the files below a folder that match a pattern; licences stay.

    A pattern that begins with `!` keeps what those before it remove.

    Returns
    -------
    tuple of str
        The patterns that match nothing: a list that has aged says so.
    """
    matchers = [
        (pattern, not pattern.startswith("!"), re.compile(fnmatch.translate(pattern.removeprefix("!"))))
        for pattern in patterns
    ]
    unused = set(patterns)
    for file in sorted(folder.rglob("*")):
        if file.is_dir() and not file.is_symlink():
            continue
        place, goes = file.relative_to(folder).as_posix(), False
        for pattern, removes, matcher in matchers:
            if matcher.match(place):
                unused.discard(pattern)
                goes = removes
        if goes and not _LICENCE.search(place):
            file.unlink()
    for entry in sorted(folder.rglob("*"), reverse=True):
        if entry.is_dir() and not entry.is_symlink() and not any(entry.iterdir()):
            entry.rmdir()
    return tuple(pattern for pattern in patterns if pattern in unused)


def strip_symbols(folder: Path) -> bool:
    """Take from libraries and programs the symbols that nobody needs to run them; return whether `strip` is here."""
    program = shutil.which("strip")
    if program is None:
        return False
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as content:
            if content.read(4) != _ELF:
                continue
        stripped = file.with_name(f"{file.name}.stripped")
        done = subprocess.run(
            [program, "--strip-unneeded", "-o", stripped, file],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0 and _is_loadable(stripped) and stripped.stat().st_size < file.stat().st_size:
            stripped.chmod(file.stat().st_mode)
            stripped.replace(file)
        else:
            stripped.unlink(missing_ok=True)
    return True


def _is_loadable(file: Path) -> bool:
    """Whether the loader could map the segments of a 64-bit ELF file.

    Wheels carry libraries whose segments were moved to make room for longer paths; `strip` lays some of them out so
    that no page fits ("ELF load command address/offset not properly aligned").
    """
    content = file.read_bytes()
    start, size, count = *struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54)
    for number in range(count):
        kind, _, offset, address, _, length, _, alignment = struct.unpack_from(
            "<IIQQQQQQ", content, start + number * size
        )
        misplaced = alignment > 1 and (address - offset) % alignment != 0
        if kind == _LOAD_SEGMENT and (misplaced or offset + length > len(content)):
            return False
    return True

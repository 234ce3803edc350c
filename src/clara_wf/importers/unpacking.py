"""Unpacking a zip that a stranger made: nothing lands outside the folder, and nothing grows without end."""

from __future__ import annotations

import errno
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clara_wf.importers.translation import shown, twice
from clara_wf.inference.install import text_fault
from clara_wf.inference.reader import quoted
from clara_wf.model.errors import InputError, LackError

_CHUNK = 1 << 20
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
#: What `zipfile` and its decompressors say of broken content; a RuntimeError is an encrypted member.
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a zip may become. What its entries declare is not believed: bytes are counted as they are written."""

    total: int = 8 << 30  # bytes, whatever the zip's own size
    ratio: int = 200  # times the zip's own size
    slack: int = 64 << 20  # bytes that are allowed beyond the ratio
    members: int = 10_000

    def allowed(self, size: int) -> int:
        """Return the bytes that a zip of so many may become."""
        return min(self.total, self.ratio * size + self.slack)


DEFAULT_LIMITS = Limits()


def unpack(file: Path, folder: Path, *, suffixes: Collection[str], limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Unpack what has one of these suffixes, and return the names of all members.

    Every name is checked, also of what is not unpacked: a zip with one bad name is not one to be trusted.

    Raises
    ------
    InputError
        It is no zip, broken, encrypted, too large, or has members that lead out of the folder or are links.
    LackError
        The disk is full.
    """
    current = ""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check(file.name, members, limits)
            left = limits.allowed(file.stat().st_size)
            for member in members:
                current = member.filename
                if not member.is_dir() and Path(member.filename).suffix.lower() in suffixes:
                    left -= _write(archive, member, folder / member.filename, left, file.name)
    except _BROKEN as exc:
        raise InputError(f"{file.name} is a broken zip: {shown(str(exc))}") from exc
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LackError(f"there is no room on the disk to unpack {file.name}") from exc
        where = f"{quoted(current)}: " if current else ""
        raise InputError(f"{file.name} cannot be unpacked: {where}{exc.strerror or 'it cannot be read'}") from exc
    return [member.filename for member in members if not member.is_dir()]


def _check(name: str, members: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(members) > limits.members:
        raise InputError(f"{name} has {len(members)} members, {limits.members} at most are unpacked")
    faults = [fault for member in members if (fault := _fault(member))]
    files = [PurePosixPath(member.filename).as_posix() for member in members if not member.is_dir()]
    faults += [f"{quoted(file)} is there twice" for file in twice(files)]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(f"{name} is not unpacked: {'; '.join(faults[:5])}{more}")


def _fault(member: zipfile.ZipInfo) -> str:
    """Say what is wrong with a member before a byte of it is read; empty: nothing."""
    # zipfile has made "/" of this system's separator, and cut at a null: the name as it was written counts.
    written = member.orig_filename
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no file and no folder"
        return f"{quoted(written)} is {kind}"
    if written.startswith("/") or _DRIVE.match(written):
        return f"{quoted(written)} is an absolute path"
    if "\\" in written or "\x00" in written:
        return f"{quoted(written)} has a backslash or a null in its name"
    if ".." in written.split("/"):
        return f"{quoted(written)} leads out of the folder"
    if text_fault(written):
        return f"{quoted(written)} has control characters in its name"
    return f"{quoted(written)} is encrypted" if member.flag_bits & _ENCRYPTED else ""


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, name: str) -> int:
    """Write one member, and return its size; end as soon as it is more than what is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(member) as source, target.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > left:
                raise InputError(
                    f"{name} is not unpacked: it becomes too large at {quoted(member.filename)} for a zip of its size"
                )
            sink.write(chunk)
    return written

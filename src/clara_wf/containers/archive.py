"""Images as files, for clusters that load them and for machines without a network."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from clara_wf.containers.engine import Engine, EngineFailed, last_line
from clara_wf.containers.images import LOCAL, Image
from clara_wf.model.files import replacing

_MANIFEST = "manifest.json"
#: For a docker older than 1.10.
_OLD_MANIFEST = "repositories"
#: Kept of what the program complains of: its last line says why it failed.
_TAIL_BYTES = 4096


def save_image(engine: Engine, image: Image, name: str, file: Path) -> None:
    """Write an image as a docker archive, in which it has the name that a cluster looks for.

    Podman puts "localhost/" before it, which no cluster knows: there a name without a host is a public registry's.

    Parameters
    ----------
    engine : Engine
        What has it.
    image : Image
        Which.
    name : str
        Repository and tag.
    file : Path
        Where to; what stands there is replaced once the archive is whole.

    Raises
    ------
    EngineFailed
        The engine could not save it.
    OSError
        The file cannot be written, or the disk is full.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [engine.program, "save", *(["--format", "docker-archive"] if engine.kind == "podman" else []), image.name]
    # Its complaints go into a file: nobody reads them while the archive is read, and it would wait for a full pipe.
    with replacing(file) as temporary, temporary.open("wb") as target, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        except OSError as exc:
            raise engine.not_started(exc) from exc
        broken: tarfile.TarError | None = None
        with process:
            if process.stdout is None:  # it was asked for
                raise RuntimeError("the program has no output")
            try:
                _rename(process.stdout, target, name.removeprefix(LOCAL))
                process.stdout.read()
            except tarfile.TarError as exc:
                broken = exc
        if broken is not None or process.returncode:
            cause = _end_of(complaints) or broken or f"exit code {process.returncode}"
            raise EngineFailed(f"`{engine.kind} save` failed: {cause}") from broken


def _end_of(complaints: IO[bytes]) -> str:
    """Return the last line of a file."""
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(size - _TAIL_BYTES, 0))
    return last_line(complaints.read().decode(errors="replace"))


def _rename(source: IO[bytes], target: IO[bytes], name: str) -> None:
    """Copy an archive as it comes, and name its image anew."""
    with tarfile.open(fileobj=source, mode="r|") as before, tarfile.open(fileobj=target, mode="w|") as after:
        for member in before:
            if member.name == _OLD_MANIFEST:
                continue
            content = before.extractfile(member) if member.isreg() else None
            if member.name == _MANIFEST and content is not None:
                images = [entry | {"RepoTags": [name]} for entry in json.load(content)]
                text = json.dumps(images).encode()
                member.size, content = len(text), io.BytesIO(text)
            after.addfile(member, content)

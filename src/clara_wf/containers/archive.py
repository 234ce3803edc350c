"""Images as files, for clusters that load them and for machines without a network."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import IO

from clara_wf.containers.engine import Engine, EngineFailed
from clara_wf.containers.images import LOCAL, Image
from clara_wf.model.files import replacing

_MANIFEST = "manifest.json"
#: For a docker older than 1.10.
_OLD_MANIFEST = "repositories"


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
    with replacing(file) as temporary, temporary.open("wb") as target:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            if process.stdout is None or process.stderr is None:  # they were asked for
                raise RuntimeError("the program has no output")
            try:
                _rename(process.stdout, target, name.removeprefix(LOCAL))
                process.stdout.read()
            except tarfile.TarError as exc:
                said = process.stderr.read().decode(errors="replace").strip().splitlines()
                raise EngineFailed(f"`{engine.kind} save` failed: {said[-1] if said else exc}") from exc
        if process.returncode:
            raise EngineFailed(f"`{engine.kind} save` failed: exit code {process.returncode}")


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

"""The server's folder of models, looked at before the server does.

One link that leads nowhere keeps Triton 2.51 from starting, if it is to load whatever there is, and from listing its
models: so it is told what to load, and what is broken is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CONFIG = "config.pbtxt"


def whole_models(models: Path) -> list[str]:
    """Return the models that the server can be told to load."""
    return [
        entry.name
        for entry in _entries(models)
        # A star would be all of them to Triton.
        if entry.name != "*" and fault_of(entry) is None and has_configuration(entry)
    ]


def faults(models: Path) -> list[str]:
    """Say what is broken, each in a line; a folder that is no model yet is not."""
    found = ((entry, fault_of(entry)) for entry in sorted(models.iterdir()))
    return [f"{entry.name} is not served: {fault}" for entry, fault in found if fault is not None]


def has_configuration(folder: Path) -> bool:
    """Say whether a folder is a model's."""
    try:
        return (folder / CONFIG).is_file()
    except OSError:  # it may not be looked into
        return False


def fault_of(entry: Path) -> str | None:
    """Say what is broken of an entry of the folder of models; None if nothing is.

    Returns
    -------
    str or None
        In words that follow its name.
    """
    try:
        for path in _polled(entry):
            if not path.exists():
                return f"{path.relative_to(entry.parent)} is a link that leads nowhere. Remove it"
        if has_configuration(entry):
            (entry / CONFIG).read_bytes()
    except OSError as exc:
        return f"it cannot be read ({exc.strerror})"
    return None


def _polled(entry: Path) -> Iterator[Path]:
    """Give what Triton looks at: a model's folder, what is in it, and what is in its versions."""
    yield entry
    if not entry.is_dir() or entry.name.startswith("."):
        return
    for path in sorted(entry.iterdir()):
        yield path
        if path.name.isdigit() and path.is_dir():
            yield from sorted(path.iterdir())


def _entries(models: Path) -> list[Path]:
    """Return what may be a model: an installation that is not finished begins with a dot."""
    return [entry for entry in sorted(models.iterdir()) if not entry.name.startswith(".")]

"""Which of our modules a program imports: an image holds those and no others, so that only they make it anew."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Folders beside modules that are no part of them.
_NOT_DATA = ("__pycache__", "_share")


def files_of_modules(names: Iterable[str], package: Path) -> dict[str, Path]:
    """Return the files of modules and of all that they import, at once or later, from the same package.

    Parameters
    ----------
    names : iterable of str
        Modules with their package, such as "clara_wf.operators.recon".
    package : Path
        The package's folder.

    Returns
    -------
    dict
        The files by their place beside the package, "clara_wf/operators/recon.py"; with what lies beside the modules of
        a room and is none, such as a catalogue.

    Raises
    ------
    FileNotFoundError
        There is no module of such a name.
    """
    found: dict[str, Path] = {}
    waiting = list(names)
    for name in waiting:
        if _file(name, package) is None:
            raise FileNotFoundError(f"{package.name} has no module {name}")
    while waiting:
        name = waiting.pop()
        file = _file(name, package)
        if file is None or _place(file, package) in found:
            continue
        found[_place(file, package)] = file
        waiting.extend(_imported(file, package.name))
        # A module is found through its packages, which are loaded before it.
        parts = name.split(".")
        waiting.extend(".".join(parts[:depth]) for depth in range(1, len(parts)))
    rooms = {file.parent for file in found.values() if file.name == "__init__.py" and file.parent != package}
    for room in rooms:
        found.update((_place(file, package), file) for file in _data(room))
    return dict(sorted(found.items()))


def _file(name: str, package: Path) -> Path | None:
    top, *parts = name.split(".")
    if top != package.name:
        return None
    module = package.joinpath(*parts)
    for file in (module / "__init__.py", module.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _place(file: Path, package: Path) -> str:
    return file.relative_to(package.parent).as_posix()


def _imported(file: Path, top: str) -> Iterator[str]:
    """Give the names that a file imports, wherever in it; of `from a import b` both, since b may be a module."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == top:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _data(room: Path) -> Iterator[Path]:
    """Give the files of a package's folder that are no modules of it."""
    for entry in sorted(room.iterdir()):
        if entry.is_file() and entry.suffix != ".py":
            yield entry
        elif entry.is_dir() and entry.name not in _NOT_DATA and not (entry / "__init__.py").exists():
            yield from (file for file in sorted(entry.rglob("*")) if file.is_file() and file.suffix != ".pyc")

"""Where a phantom is written: its data and its truth appear whole, or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from clara_wf.model.errors import UsageError
from clara_wf.model.files import UNFINISHED, folder_appearing


def check_new(folder: Path) -> None:
    """Check that a phantom can go to a folder.

    Raises
    ------
    UsageError
        It is a file, or something else than what an interrupted phantom has left lies in it.
    """
    if folder.exists() and (
        not folder.is_dir() or any(not entry.name.startswith(UNFINISHED) for entry in folder.iterdir())
    ):
        raise UsageError(f"{folder} is not empty", remedy="Give the name of a new folder")


@contextlib.contextmanager
def folders_appearing(folder: Path, data: str) -> Iterator[tuple[Path, Path]]:
    """Give a folder for data and one for their truth; they appear in `folder` when the block ends well.

    A part of a series looks like a smaller one. What a killed phantom has left is removed.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left_over)
    # The data appear last: whoever sees them has both.
    with folder_appearing(folder / data) as unfinished, folder_appearing(folder / "truth") as truth:
        yield unfinished, truth

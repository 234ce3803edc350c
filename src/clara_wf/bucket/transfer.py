"""Folders to a bucket and back, each file whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clara_wf.bucket.store import PART_BYTES, Store, open_store
from clara_wf.model.errors import InputError
from clara_wf.model.files import UNFINISHED, replacing

#: Files that move at once. A series is thousands of small ones, where each waits for the store and not for the wire.
AT_ONCE = 4
#: Between two looks for an object: a bucket is asked over the network, and some are paid for each question.
POLL_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What went over."""

    files: int = 0  # how many
    size: int = 0  # bytes

    def __add__(self, other: Moved) -> Moved:
        return Moved(files=self.files + other.files, size=self.size + other.size)


def _say_nothing(fraction: float) -> None:
    """Stand in for who does not ask how far it is."""


def send(
    folder: Path,
    url: str,
    endpoint: str = "",
    *,
    skip: Sequence[str] = (),
    within: Path | None = None,
    progress: Callable[[float], None] = _say_nothing,
) -> Moved:
    """Send all files of a folder, of any depth; links are followed, unfinished files passed over.

    Parameters
    ----------
    folder : Path
        What to send.
    url : str
        Where to: ``s3://bucket/prefix``. What lies there under other names stays.
    endpoint : str, optional
        ``http://host:port`` of an S3 server that is not AWS.
    skip : sequence of str, optional
        Files of the folder that are left out.
    within : Path, optional
        A folder that no link may lead out of: what programs have made that are not trusted.
    progress : callable, optional
        Told the fraction that is done.

    Returns
    -------
    Moved
        What went over; what arrived has been looked at.

    Raises
    ------
    InputError
        The folder holds what cannot be sent, or the store refuses it.
    LackError
        The store does not answer, or refuses these keys.
    UsageError
        The URL or the endpoint is wrong.
    OSError
        A file cannot be read.
    """
    store = open_store(url, endpoint)
    found = {name: size for name, size in _files_of(folder) if name not in skip}
    if within is not None:
        root = within.resolve()
        if not all((folder / name).resolve().is_relative_to(root) for name in found):
            raise InputError("the folder to send holds a link that leads out of the payload")
    tasks = [_sending(store, folder / name, name) for name in sorted(found)]
    _all(tasks, progress)
    if found:
        there = _sizes(store)
        # A log may grow while it is sent.
        if any(there.get(name, -1) < size for name, size in found.items()):
            raise InputError(f"{store.url}: less arrived than was sent", remedy="Did files change meanwhile?")
    return Moved(files=len(found), size=sum(found.values()))


def fetch(
    url: str,
    folder: Path,
    endpoint: str = "",
    *,
    skip: Sequence[str] = (),
    progress: Callable[[float], None] = _say_nothing,
) -> Moved:
    """Fetch all objects below a URL into a folder. Each file appears whole or not at all, forced onto the disk.

    Parameters
    ----------
    url : str
        From where: ``s3://bucket/prefix``.
    folder : Path
        Where to; it is made. What lies there under other names stays.
    endpoint : str, optional
        ``http://host:port`` of an S3 server that is not AWS.
    skip : sequence of str, optional
        Folders below the URL that are left out.
    progress : callable, optional
        Told the fraction that is done.

    Raises
    ------
    InputError
        There is nothing, an object's name leads out of the folder, or the store refuses the request.
    LackError
        The store does not answer, or refuses these keys.
    UsageError
        The URL or the endpoint is wrong.
    OSError
        A file cannot be written.
    """
    store = open_store(url, endpoint)
    left_out = tuple(PurePosixPath(name) for name in skip)
    found = {
        name: size
        for name, size in _sizes(store).items()
        if not any(PurePosixPath(name).is_relative_to(other) for other in left_out)
    }
    if not found:
        raise InputError(f"{store.url}: there is nothing", remedy="Put the input there first.")
    folder.mkdir(parents=True, exist_ok=True)
    # All names are looked at before the first file is written.
    targets = {name: _target(store, folder, name) for name in sorted(found)}
    if any(parent.as_posix() in found for name in found for parent in PurePosixPath(name).parents):
        raise InputError(f"{store.url}: an object is named as the folder of another", remedy="Remove or rename it.")
    _all([_fetching(store, name, target, found[name]) for name, target in targets.items()], progress)
    return Moved(files=len(found), size=sum(found.values()))


def wait_for(url: str, endpoint: str = "") -> None:
    """Wait until there is an object of this URL, for as long as it takes.

    Raises
    ------
    ClaraError
        As `fetch`.
    """
    store = open_store(url, endpoint)
    while not store.ask(lambda: store.files.isfile(store.root)):
        time.sleep(POLL_SECONDS)


def remove(url: str, endpoint: str = "") -> None:
    """Remove all objects below a URL; nothing there is as good.

    Raises
    ------
    ClaraError
        As `fetch`.
    """
    store = open_store(url, endpoint)
    if _sizes(store):
        store.ask(lambda: store.files.rm(store.root, recursive=True))


def _files_of(folder: Path) -> Iterator[tuple[str, int]]:
    """Give each file's name below a folder, and its size; a link that leads back up is followed once."""
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        about = Path(here).stat()
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = [name for name in folders if not name.startswith(UNFINISHED)]
        for name in names:
            if not name.startswith(UNFINISHED):
                yield _file(folder, Path(here, name))


def _raise(fault: OSError) -> None:
    raise fault


def _file(folder: Path, path: Path) -> tuple[str, int]:
    try:
        about = path.stat()
    except FileNotFoundError:
        raise InputError("the folder to send holds a link that leads nowhere") from None
    if not stat.S_ISREG(about.st_mode):
        raise InputError("the folder to send holds something that is no file")
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError("the folder to send holds a file whose name is no text") from None
    return name, about.st_size


def _sizes(store: Store) -> dict[str, int]:
    """Return the objects below a store's folder by name, with their sizes."""

    def listing() -> dict[str, dict[str, object]]:
        try:
            found: dict[str, dict[str, object]] = store.files.find(store.root, detail=True)
        except FileNotFoundError:
            return {}  # some kinds say so where others have an empty list
        return found

    sizes = {}
    for path, about in store.ask(listing).items():
        name = path.removeprefix(store.root).removeprefix("/")
        last = name.rpartition("/")[2]
        # Some programs mark a folder by an object of no size whose name ends in a slash.
        if name and last and not last.startswith(UNFINISHED):
            sizes[name] = int(str(about["size"] or 0))
    return sizes


def _target(store: Store, folder: Path, name: str) -> Path:
    """Return where an object goes.

    Raises
    ------
    InputError
        Its name leads elsewhere. It is not repeated.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\0" in name:
        raise InputError(f"{store.url}: an object's name leads out of the folder", remedy="Remove or rename it.")
    target = folder / name
    # A link that lies there already may lead out of it too.
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{store.url}: an object's name follows a link out of the folder")
    return target


def _sending(store: Store, source: Path, name: str) -> Callable[[], None]:
    options = {"chunksize": PART_BYTES} if store.is_s3 else {}

    def task() -> None:
        if store.is_folder_here:
            target = Path(store.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as unfinished:
                shutil.copyfile(source, unfinished)
        else:
            store.ask(lambda: store.files.put_file(str(source), store.path(name), **options))

    return task


def _fetching(store: Store, name: str, target: Path, size: int) -> Callable[[], None]:
    def task() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as unfinished:
            store.ask(lambda: store.files.get_file(store.path(name), str(unfinished)))
            if unfinished.stat().st_size != size:
                raise InputError(f"{store.url}: an object changed while it was fetched", remedy="Try again.")

    return task


def _all(tasks: Sequence[Callable[[], None]], progress: Callable[[float], None]) -> None:
    """Do all tasks, some at once; the first error ends it."""
    workers = ThreadPoolExecutor(AT_ONCE)
    futures = [workers.submit(task) for task in tasks]
    try:
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            progress(done / len(tasks))
    except KeyboardInterrupt:
        # A pod that is to end has seconds, and what is under way may take minutes.
        workers.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        workers.shutdown(cancel_futures=True)
        raise
    workers.shutdown()

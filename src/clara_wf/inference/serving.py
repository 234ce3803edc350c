"""From an installed model to what Triton serves: `config.pbtxt`, and for the Python backend its code.

How a model is served is kept beside it, in `serving.json`; without the file, the defaults hold.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import get_args

from clara_wf.inference.description import ModelDescription
from clara_wf.inference.exclusive import alone
from clara_wf.inference.onnx_file import read_graph
from clara_wf.inference.repository import CONFIG, MODEL_FILE, InstalledModel, damaged, find_model, list_models
from clara_wf.inference.triton_config import Backend, Precision, Serving, config_text
from clara_wf.model.errors import ClaraError, InputError, UsageError
from clara_wf.model.files import write_atomically

SETTINGS = "serving.json"
#: What the Python backend runs, in the folder of the model's version, and where it lies in the package.
CODE = {"model.py": "triton_backend/model.py", "openvino_network.py": "openvino_network.py"}


def read_serving(folder: Path) -> Serving:
    """Return how a model is served.

    Raises
    ------
    InputError
        Its settings cannot be read.
    """
    try:
        return _checked(Serving(**json.loads((folder / SETTINGS).read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return Serving()
    except OSError as exc:
        raise InputError(f"{folder.name}/{SETTINGS} cannot be read: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise InputError(
            f"{folder.name}/{SETTINGS} is broken: {exc}",
            remedy=f"Run: clara-wf model configure {folder.name} --reset",
        ) from exc


def _checked(serving: Serving) -> Serving:
    """Check what a person may have written."""
    if serving.backend not in get_args(Backend):
        raise ValueError(f"there is no backend {serving.backend}")
    if serving.precision not in {None, *get_args(Precision)}:
        raise ValueError(f"there is no precision {serving.precision}")
    least = {"instances": 1, "max_batch": 1, "queue_delay_us": 0}
    for name, bound in least.items():
        value = getattr(serving, name)
        if value is not None and (not isinstance(value, int) or value < bound):
            raise ValueError(f"{name} is no whole number from {bound}")
    return serving


def configure(model: InstalledModel, serving: Serving) -> list[str]:
    """Have an installed model served otherwise; a server that runs sees it when it loads the model again.

    Returns
    -------
    list of str
        The files that were written, within the model's folder.

    Raises
    ------
    UsageError
        It cannot be served so; nothing was written.
    ModelDamaged
        Its ONNX file is gone or broken.
    """
    with alone(model.folder.parent):
        # It may have been installed anew since it was looked for.
        model = find_model(model.folder.parent, model.name)
        written = _write(_files(model.folder, model.name, model.description, model.sha256, serving))
        write_atomically(model.folder / SETTINGS, json.dumps(dataclasses.asdict(serving), indent=2) + "\n")
    return [*written, SETTINGS]


def write_served(folder: Path, name: str, description: ModelDescription, sha256: str) -> None:
    """Write what Triton wants to know into the folder of a model that is being installed.

    A model that is installed again is served as before, if the new network can be.
    """
    before = folder.parent / name
    try:
        _write(_files(folder, name, description, sha256, read_serving(before)))
        if (before / SETTINGS).is_file():
            write_atomically(folder / SETTINGS, (before / SETTINGS).read_bytes())
    except (UsageError, InputError):
        _write(_files(folder, name, description, sha256, Serving()))


def ensure_served(root: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Bring what an earlier version installed up to date.

    A model that is damaged is left as it is, and said: the others are served.
    """
    if not root.is_dir():
        return
    with alone(root):
        for name in list_models(root):
            try:
                model = find_model(root, name)
                files = _files(model.folder, name, model.description, model.sha256, read_serving(model.folder))
            except ClaraError as fault:
                say(str(fault))
                continue
            if _write(files):
                say(f"{name} is made ready for the inference server")


def _files(folder: Path, name: str, description: ModelDescription, sha256: str, serving: Serving) -> dict[Path, bytes]:
    """Return what is to stand in a model's files.

    Raises
    ------
    ModelDamaged
        Its ONNX file is gone or broken.
    UsageError
        It cannot be served so.
    """
    version = folder / "1"
    try:
        graph = read_graph(version / MODEL_FILE)
    except InputError as exc:
        raise damaged(name, "it has no ONNX file that can be read") from exc
    text = config_text(name, description, sha256, graph, serving)
    files = {}
    if serving.backend == "python":
        package = resources.files("clara_wf.inference")
        files = {version / target: (package / source).read_bytes() for target, source in CODE.items()}
    # Last: with it, the model is to be served.
    return files | {folder / CONFIG: text.encode()}


def _write(files: dict[Path, bytes]) -> list[str]:
    """Write the files that are not there or have another content; return their names."""
    written = []
    for path, content in files.items():
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
            written.append(path.name)
    return written

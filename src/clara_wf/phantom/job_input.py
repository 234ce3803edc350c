"""What a test job starts from, made on first use: `<root>/<job id>/<first stage>/input` and `<root>/<job id>/truth`.

Everything is made in a folder beside and moved into place, the input last: an input that is there is complete. A stamp
beside it says which generator made it and what it looked like. An input without a stamp is the user's own, and one
that was changed since may be: neither is ever touched. A copy is no change: where only the times differ, the content
counts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.model.errors import UsageError
from clara_wf.model.filelock import locked
from clara_wf.model.files import UNFINISHED, fsync, sha256_of, write_atomically
from clara_wf.phantom.acquisition import acquisition
from clara_wf.phantom.dicom_series import write_ct_series
from clara_wf.phantom.patient import EVERYDAY, Phantom, make_anatomy, make_phantom
from clara_wf.phantom.projection_series import write_projection_series
from clara_wf.phantom.projection_volume import write_projection_volume
from clara_wf.phantom.scans import helical
from clara_wf.phantom.volume_input import generator_sha256, write_labels_input, write_truth, write_volume_input
from clara_wf.reconstruction.geometry import ScanGeometry
from clara_wf.reconstruction.stack import Calibration, geometry_json

#: Called with the share done (0 to 1) and what is being done.
Progress = Callable[[float, str], None]

_STAGE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LOCK = ".test-data.lock"


class Origin(Enum):
    """Whose a job's input is."""

    OURS = "made by us, and as we made it"
    CHANGED = "made by us, and changed since"
    FOREIGN = "the user's own"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Wanted:
    """What an input is made of."""

    first_stage: str
    seed: int
    geometry: VolumeGeometry  # of image and truth
    scan: ScanGeometry | None  # of the projections; None: there are none

    def made_by(self) -> dict[str, Any]:
        """Return what the stamp tells of it, as JSON types."""
        said: dict[str, Any] = {
            "generator": generator_sha256(),
            "seed": self.seed,
            "affine": self.geometry.affine.tolist(),
            "shape": list(self.geometry.shape),
        }
        if self.scan is not None:
            content = geometry_json(self.scan, patient_position=None, calibration=Calibration())
            said["scan"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return said


def ensure_test_data(
    root: Path,
    job_id: str,
    first_stage: str,
    *,
    projections: bool = False,
    progress: Progress | None = None,
    seed: int = 0,
    geometry: VolumeGeometry = EVERYDAY,
    scan: ScanGeometry | None = None,
) -> Path:
    """Make what a test job starts from, unless it is there.

    Parameters
    ----------
    root
        The folder `test-data`; made if missing.
    job_id
        A UUID; the job's folder.
    first_stage
        What the job starts with. `dicom-reader` gets a CT series, `dicom-writer` the true labels (`recon.seg.mhd`),
        `recon` projections (`projections.mhd`), every other stage the image as a volume (`recon.mhd`).
    projections
        Whether `dicom-reader` gets a series of projections instead: the same scan, as DICOM-CT-PD.
    progress
        Told about each step.
    seed, geometry
        Of the phantom; truth and image lie on this grid.
    scan
        Of the projections; the helical one if None.

    Returns
    -------
    Path
        `<root>/<job id>`. Its `truth` is missing where the input is the user's own.

    Raises
    ------
    UsageError
        The job id is no UUID, or the stage's name cannot be one.
    OSError
        The folder cannot be written, or the disk is full; nothing half-made is left in place.
    """
    report = progress or _silent
    job = root / _checked_job_id(job_id)
    if not _STAGE_NAME.fullmatch(first_stage):
        raise UsageError(
            f"{first_stage!r} cannot be the name of a stage", remedy="Use lower-case letters, digits and -"
        )
    job.mkdir(parents=True, exist_ok=True)
    stage = job / first_stage
    wanted = _Wanted(
        first_stage=first_stage,
        seed=seed,
        geometry=geometry,
        scan=(scan or helical()) if first_stage == "recon" or (first_stage == "dicom-reader" and projections) else None,
    )
    made_by = wanted.made_by()
    if not _is_wanted(stage, made_by):
        return job
    with locked(job / _LOCK, waiting=lambda: report(0.0, "waiting for another process that makes the same test data")):
        for leftover in job.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover)
        if not _is_wanted(stage, made_by):  # another process has made it meanwhile
            return job
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=job) as temporary:
            _make(Path(temporary), wanted, report)
            _place(Path(temporary), job, stage, made_by)
    report(1.0, "test data are ready")
    return job


def origin_of(root: Path, job_id: str, first_stage: str) -> Origin:
    """Say whose a job's input is. It is read only where a file's time is another than when it was made."""
    stage = root / _checked_job_id(job_id) / first_stage
    try:
        stamp = _stamp(stage)
    except ValueError:
        return Origin.CHANGED
    if stamp is None:
        return Origin.FOREIGN
    return Origin.OURS if _is_as_made(stage / "input", stamp) else Origin.CHANGED


def truth_of(root: Path, job_id: str, first_stage: str) -> Path | None:
    """Return the folder with the truth of a job's input; None where the input is the user's own, or was changed."""
    ours = origin_of(root, job_id, first_stage) is Origin.OURS
    return root / _checked_job_id(job_id) / "truth" if ours else None


def _checked_job_id(job_id: str) -> str:
    try:
        return str(uuid.UUID(job_id))
    except ValueError as exc:
        raise UsageError(
            f"{job_id!r} is no job id", remedy="Give a UUID such as 00000000-0000-0000-0000-000000000000"
        ) from exc


def _is_wanted(stage: Path, made_by: dict[str, Any]) -> bool:
    """Say whether the input must be made: it is missing, or ours, unchanged and out of date."""
    folder = stage / "input"
    if not folder.is_dir() or not any(folder.iterdir()):
        return True
    try:
        stamp = _stamp(stage)
    except ValueError:
        return False
    return stamp is not None and stamp.get("made_by") != made_by and _is_as_made(folder, stamp)


def _make(folder: Path, wanted: _Wanted, report: Progress) -> None:
    report(0.05, "making the phantom")
    phantom = make_phantom(wanted.geometry, seed=wanted.seed)
    (folder / "input").mkdir()
    if wanted.scan is None:
        report(0.6, "writing the phantom")
        _write_input(folder / "input", wanted.first_stage, phantom)
    else:
        _write_projections(folder / "input", wanted, wanted.scan, report)
    report(0.9, "writing its truth")
    (folder / "truth").mkdir()
    write_truth(folder / "truth", phantom)
    # A series of projections is thousands of files: at once, they share the disk's waits.
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(fsync, folder.rglob("*")))


def _write_input(folder: Path, first_stage: str, phantom: Phantom) -> None:
    if first_stage == "dicom-reader":
        write_ct_series(folder, phantom.image, seed=phantom.truth.seed)
    elif first_stage == "dicom-writer":
        write_labels_input(folder, phantom)
    else:
        write_volume_input(folder, phantom)


def _write_projections(folder: Path, wanted: _Wanted, scan: ScanGeometry, report: Progress) -> None:
    def progress(share: float) -> None:
        report(0.1 + 0.8 * share, f"projecting the phantom, {int(share * 4) * 25} % of {scan.views} views")

    made = acquisition(make_anatomy(wanted.seed), scan, seed=wanted.seed)
    write = write_projection_series if wanted.first_stage == "dicom-reader" else write_projection_volume
    write(folder, made, progress=progress)


def _place(made: Path, job: Path, stage: Path, made_by: dict[str, Any]) -> None:
    """Move what was made into place: truth, stamp, and the input as the last."""
    stage.mkdir(exist_ok=True)
    for old, name in ((job / "truth", "old truth"), (stage / "input", "old input")):
        if old.exists():
            old.rename(made / name)
    (made / "truth").rename(job / "truth")
    files = _fingerprint(made / "input")
    stamp = {
        "made_by": made_by,
        "files": files,
        "sha256": [sha256_of(made / "input" / str(name)) for name, *_ in files],
    }
    write_atomically(_stamp_path(stage), json.dumps(stamp, indent=1) + "\n")
    (made / "input").rename(stage / "input")
    fsync(stage)
    fsync(job)


def _stamp_path(stage: Path) -> Path:
    return stage / "input.stamp.json"


def _stamp(stage: Path) -> dict[str, Any] | None:
    """Return what stands in an input's stamp; None if there is none.

    Raises
    ------
    ValueError
        It is no stamp.
    """
    try:
        content = json.loads(_stamp_path(stage).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise ValueError("a stamp is a JSON object")  # noqa: TRY004 - as for one that is no JSON
    return content


def _is_as_made(folder: Path, stamp: dict[str, Any]) -> bool:
    """Say whether an input is as its stamp says. What has its size and its time is not read, since that takes long."""
    made, found = stamp.get("files"), _fingerprint(folder)
    if made == found:
        return True
    hashes = stamp.get("sha256")  # a stamp of an earlier version has none
    if not isinstance(made, list) or not isinstance(hashes, list) or not len(made) == len(hashes) == len(found):
        return False
    if any(then[:2] != now[:2] for then, now in zip(made, found, strict=True)):
        return False
    return all(
        then == now or sha256 == sha256_of(folder / str(now[0]))
        for then, now, sha256 in zip(made, found, hashes, strict=True)
    )


def _fingerprint(folder: Path) -> list[list[str | int]]:
    """Return name, size and time of change of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _silent(_share: float, _message: str) -> None:
    """Report to nobody."""

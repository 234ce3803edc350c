"""What a test job starts from, made on first use: `<root>/<job id>/<first stage>/input` and `<root>/<job id>/truth`.

Everything is made in a folder beside and moved into place, the input last: an input that is there is complete. A stamp
beside it says which generator made it and what it looked like; an input without its stamp, or changed since, belongs
to the user and is never touched.
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
from pathlib import Path
from typing import Any

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.model.errors import UsageError
from clara_wf.model.filelock import locked
from clara_wf.model.files import UNFINISHED, fsync, write_atomically
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


def truth_of(root: Path, job_id: str, first_stage: str) -> Path | None:
    """Return the folder with the truth of a job's input; None where the input is the user's own, or was changed."""
    job = root / _checked_job_id(job_id)
    stage = job / first_stage
    try:
        stamp = json.loads(_stamp_path(stage).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return job / "truth" if stamp.get("files") == _fingerprint(stage / "input") else None


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
        stamp = json.loads(_stamp_path(stage).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(stamp.get("made_by") != made_by and stamp.get("files") == _fingerprint(folder))


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
    stamp = {"made_by": made_by, "files": _fingerprint(made / "input")}
    write_atomically(_stamp_path(stage), json.dumps(stamp, indent=1) + "\n")
    (made / "input").rename(stage / "input")
    fsync(stage)
    fsync(job)


def _stamp_path(stage: Path) -> Path:
    return stage / "input.stamp.json"


def _fingerprint(folder: Path) -> list[list[str | int]]:
    """Return name, size and time of change of every file: enough to notice a user's hand."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _silent(_share: float, _message: str) -> None:
    """Report to nobody."""

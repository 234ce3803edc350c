"""The variables of the stage contract, and the context that a stage is given."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clara_wf.model.errors import UsageError
from clara_wf.model.plan import PREFIX


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The `NVIDIA_CLARA_*` variables, checked."""

    stage: str  # STAGENAME
    job_id: str  # JOBID, a UUID
    job_name: str  # JOBNAME, no patient data
    app_dir: Path  # APPDIR, absolute
    inputs: Path  # INPUTS below APPDIR: a folder, or a file in it
    outputs: Path  # OUTPUTS below APPDIR: a folder, or a file in it
    lock: Path  # LOCKDIR/LOCKNAME: created when this stage is done
    wait: Path | None  # LOCKDIR/WAITNAME: created by the stage before; None for the first stage
    input_lock: Path | None  # INPUTLOCK, for the first stage; None if RUNSIMPLE is TRUE
    timeout: float | None  # TIMEOUT in seconds, waiting and working each; None if 0
    log: Path | None  # LOGNAME
    trtis_uri: str  # host:port; empty for the embedded engine
    image: str  # repository:tag, for the record

    @staticmethod
    def read(environment: Mapping[str, str]) -> Contract:
        """Read the contract from the environment.

        Raises
        ------
        UsageError
            Variables are missing or wrong; the message names all of them.
        """
        faults: list[str] = []

        def value(name: str, default: str | None = None) -> str:
            found = environment.get(PREFIX + name, default)
            if found is None or (found == "" and default is None):
                faults.append(f"{PREFIX}{name} is not set")
                return ""
            return found

        app_dir = Path(value("APPDIR", "/app"))
        if not app_dir.is_absolute():
            faults.append(f"{PREFIX}APPDIR={app_dir} is not absolute")
        stage = value("STAGENAME")
        lock_dir = app_dir / value("LOCKDIR")
        simple = value("RUNSIMPLE", "").upper() == "TRUE"
        wait_name = value("WAITNAME", "")
        input_lock = value("INPUTLOCK", "")
        log_name = value("LOGNAME", "")
        contract = Contract(
            stage=stage,
            job_id=value("JOBID"),
            job_name=value("JOBNAME", ""),
            app_dir=app_dir,
            inputs=app_dir / value("INPUTS"),
            outputs=app_dir / value("OUTPUTS"),
            lock=lock_dir / value("LOCKNAME"),
            wait=lock_dir / wait_name if wait_name else None,
            input_lock=lock_dir / input_lock if input_lock and not simple and not wait_name else None,
            timeout=_seconds(value("TIMEOUT", "0"), faults),
            log=app_dir / log_name if log_name else None,
            trtis_uri=value("TRTISURI", ""),
            image=value("IMAGE", ""),
        )
        if faults:
            raise UsageError("the stage contract is broken: " + ", ".join(faults))
        return contract


def _seconds(text: str, faults: list[str]) -> float | None:
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        faults.append(f"{PREFIX}TIMEOUT={text} is no number of seconds")
    return seconds or None


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage knows of the world while it runs."""

    stage: str  # its name: ai-vnet
    job_id: str  # UUID
    job_name: str  # no patient data
    app_dir: Path  # /app, or what stands for it where stages are processes
    inputs: Path  # a folder, or a file in it
    outputs: Path  # a folder, or a file in it; its folder exists
    options: argparse.Namespace  # the stage's own arguments
    trtis_uri: str  # host:port of the inference server; empty for the embedded engine
    image: str  # repository:tag, for provenance
    log: logging.Logger  # one JSON object a line, to standard error and LOGNAME; never patient data
    report_progress: Callable[[float, str], None]  # see progress()

    @property
    def input_folder(self) -> Path:
        """The folder of `inputs`, also where that names a file."""
        return self.inputs if self.inputs.is_dir() or not self.inputs.suffix else self.inputs.parent

    @property
    def output_folder(self) -> Path:
        """The folder of `outputs`, also where that names a file."""
        return self.outputs if self.outputs.is_dir() or not self.outputs.suffix else self.outputs.parent

    @property
    def model_repository(self) -> Path:
        """The folder of installed models, mounted by the chart."""
        return self.app_dir / "models"

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how much of the work is done, from 0 to 1, and what is being done now."""
        self.report_progress(min(max(fraction, 0.0), 1.0), message)

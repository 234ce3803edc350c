"""The record of a run: kept in memory, and in the payload's `job.json` at every change."""

from __future__ import annotations

import time
from dataclasses import replace

from clara_wf.model.job import Job, StageRecord
from clara_wf.model.locks import now
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan
from clara_wf.model.states import JobState, JobStatus, StageState
from clara_wf.runners.verdict import conclude


class Journal:
    """What is known of a job while it runs."""

    def __init__(self, plan: Plan) -> None:
        self._path = Payload(root=plan.payload).job
        self._start = time.monotonic()
        self._fault = ""
        #: What a job is that failed, where that is more than FAULTED.
        self.status = JobStatus.FAULTED
        self._records = {stage.name: StageRecord(name=stage.name, state=StageState.WAITING) for stage in plan.stages}
        self.job = Job(
            id=plan.job_id,
            name=plan.job_name,
            workflow=plan.workflow,
            state=JobState.PENDING,
            status=JobStatus.HEALTHY,
            stages=tuple(self._records.values()),
        )

    def begin(self) -> None:
        """Note the start."""
        self._start = time.monotonic()
        self.job = replace(self.job, state=JobState.RUNNING, started=now())
        self._save()

    def note(self, record: StageRecord) -> None:
        """Note what a stage does now, or how it ended."""
        self._records[record.name] = record
        if record.state is StageState.FAILED and not self._fault:
            # A stage may stop because of another one before that one has quite ended: the first to fail is named.
            first = record.message.removeprefix("upstream ")
            self._fault = first if first != record.message else f"stage {record.name} failed: {record.message}"
        self.job = replace(self.job, stages=tuple(self._records.values()))
        self._save()

    def working(self, name: str) -> None:
        """Note that a stage works."""
        self.note(replace(self._records[name], state=StageState.WORKING))

    def blame(self, fault: str) -> None:
        """Note why the job fails, where no stage is to blame."""
        self._fault = self._fault or fault

    def end(self, *, canceled: bool) -> Job:
        """Note the end, and return the job."""
        job = conclude(self.job, tuple(self._records.values()), fault=self._fault, canceled=canceled)
        if job.status is JobStatus.FAULTED:
            job = replace(job, status=self.status)
        self.job = replace(job, ended=now(), wall_s=round(time.monotonic() - self._start, 3))
        problem = self._save()
        if problem:
            told = f"{self.job.message}; " if self.job.message else ""
            self.job = replace(self.job, message=f"{told}job.json could not be written: {problem}")
        return self.job

    def _save(self) -> str:
        """Write job.json; return why not, if so: a full disk is for the stages to tell, and no end of the run."""
        try:
            self.job.write(self._path)
        except OSError as fault:
            return fault.strerror or type(fault).__name__
        return ""

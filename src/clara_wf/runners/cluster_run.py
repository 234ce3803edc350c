"""One job in a cluster: installed, watched, ended.

It is watched by listing the Job and its pod again and again: whatever was missed while the API server or this program
was away is seen at the next look. A job whose program was killed goes on; whoever starts the same job again finds it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from lightkube.resources.batch_v1 import Job as ClusterJob
from lightkube.resources.core_v1 import Pod

from clara_wf.model.errors import ChartError, ClaraError, JobError, UsageError
from clara_wf.model.events import Event, JobEnded, JobLogged, StageWaiting, StageWorking
from clara_wf.model.job import Job
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan
from clara_wf.model.states import JobState, JobStatus
from clara_wf.runners.cluster import Cluster, Refused, Unreachable
from clara_wf.runners.cluster_patience import ClusterLimits, Silence, TroubleClock
from clara_wf.runners.cluster_state import (
    CARRIERS,
    DELETED,
    OUT,
    Further,
    JobView,
    Phase,
    Trouble,
    pod_name,
    same_work,
    view,
)
from clara_wf.runners.journal import Journal
from clara_wf.runners.limits import Limits
from clara_wf.runners.pod_stage import PodStage
from clara_wf.runners.release import Release, Store
from clara_wf.runners.sharing import share_folders
from clara_wf.runners.workspace import Workspace, faults_of, unwritable

_A_DAY = 24 * 3600
#: Of a stage that nobody has seen end, and that left no word.
_GONE = "its container is gone"


class KubernetesRun:
    """One job in a cluster; see `Run`."""

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        release: Release,
        store: Store | None,
        *,
        keep: bool,
        say: Callable[[str], None],
        limits: Limits,
        patience: ClusterLimits,
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._release = release
        self._store = store
        self._keep = keep
        self._say = say
        self._limits = limits
        self._patience = patience
        self._journal = Journal(plan)
        logs = Payload(root=plan.payload).logs
        chain = zip(plan.stages, (None, *plan.stages), strict=False)
        self._stages = [PodStage(stage, before, plan.job_id, logs, limits) for stage, before in chain]
        self._awake = threading.Event()
        self._cancels = 0
        self._deleted_with: int | None = None  # how many cancels there were when the Job was last deleted
        self._found = False  # the job was running already
        self._installed = False
        self._fetched = False  # out of the bucket
        self._sent = False  # by the pod, into the bucket
        self._stranded = False  # the result is in the bucket and cannot be had
        self._ended = False
        self._started = time.monotonic()
        self._silence = Silence(plan.job_id, patience)
        self._troubled = TroubleClock()
        self._fatal: Trouble | None = None
        self._failed_at: float | None = None
        self._asked_at: float | None = None
        self._pod = ""  # the one that carries out the job
        self._nudged_at = 0.0
        self._further = Further()
        self._told_waiting = False
        self._told_unread = False

    @property
    def job(self) -> Job:
        """The job as it stands."""
        return self._journal.job

    def cancel(self) -> None:
        """Ask the job to end; a second call does not give its stages time."""
        self._cancels += 1
        self._awake.set()

    # ---------------------------------------------------------------- taking the job

    def __enter__(self) -> Self:
        """Check the plan, take the payload, and look what there is of the job in the cluster."""
        faults = faults_of(self._plan)
        if faults:
            raise ChartError("; ".join(faults))
        if self._plan.storage == "storageClass":
            raise UsageError(
                "workflow.payloads.storageClass gives every job an empty volume, which nobody fills",
                remedy="Name a bucket too (workflow.payloads.bucket.url), or an existing claim",
            )
        self._workspace = Workspace(self._plan)
        try:
            self._take()
        except BaseException:
            self._workspace.close()
            raise
        self._journal.begin()
        return self

    def _take(self) -> None:
        """Find the job if it is running already, else clear away what an earlier one left."""
        found = self._cluster.job(self._plan.job_id)
        if found is not None and not _is_going(found):
            differences = same_work(self._plan, found)
            if _is_unfinished(Payload(root=self._plan.payload)) and not differences:
                self._found = self._installed = True
                return
            if not view(self._plan, found, ()).finished:
                why = f": {differences}" if differences else ", started by somebody else"
                raise JobError(
                    f"job {self._plan.job_id} is running in the cluster already{why}",
                    remedy=f"Wait for its end, or remove it: helm uninstall --namespace {self._cluster.namespace} "
                    f"{_instance(found)}",
                )
        self._release.uninstall()
        self._cluster.clear(self._plan.job_id, grace=self._grace)
        self._wait_until_gone()
        self._workspace.prepare(())
        try:
            share_folders(self._plan)
        except OSError as fault:
            raise unwritable(self._plan, fault) from fault

    @property
    def _grace(self) -> int:
        """Seconds from SIGTERM to SIGKILL; Kubernetes knows whole ones."""
        return max(1, round(self._limits.grace))

    def _wait_until_gone(self) -> None:
        """Wait until nothing of the job is in the cluster: what still runs there would write into the payload."""
        deadline = time.monotonic() + self._patience.cleared
        told = False
        while left := self._cluster.leftovers(self._plan.job_id):
            if time.monotonic() > deadline or self._cancels > 1:
                raise JobError(
                    f"job {self._plan.job_id}: its {', '.join(left)} of an earlier run does not go away",
                    remedy="Look at it by kubectl describe",
                )
            if not told:
                self._say(f"waiting until what an earlier run left in the cluster is gone: its {', '.join(left)}")
                told = True
            time.sleep(self._patience.tick)

    # ---------------------------------------------------------------- carrying it out

    def __iter__(self) -> Iterator[Event]:
        """Carry out the plan."""
        self._started = time.monotonic()
        for stage in self._stages:
            yield StageWaiting(stage=stage.name)
        if self._found:
            yield JobLogged(level="INFO", message="The job is in the cluster already: it is followed from here on")
        else:
            yield from self._install()
        while self._living():
            yield from self._step()
        yield from self._tidy()
        yield self._end()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left."""
        try:
            if not self._ended and not isinstance(fault, Unreachable):
                self.cancel()
                while self._living():
                    list(self._step())
                list(self._tidy())
                self._end()
        finally:
            self._workspace.close()

    def _living(self) -> list[PodStage]:
        return [stage for stage in self._stages if stage.record is None]

    def _install(self) -> Iterator[Event]:
        try:
            if self._store is not None:
                yield JobLogged(level="INFO", message="sending the input to the bucket")
                # What an earlier run of this id left there may be another study.
                self._store.remove()
                self._store.send()
            if not self._cancels:
                self._release.install()
                self._installed = True
        except (ClaraError, OSError) as fault:
            self._journal.blame(str(fault))
        if not self._installed:
            for stage in self._stages:
                stage.end("not started", canceled=True)
                yield self._conclude(stage)

    def _step(self) -> Iterator[Event]:
        """Look once, act on what is seen, and wait a while."""
        self._awake.clear()
        try:
            self._obey()
            seen = self._look()
            yield from self._silence.broken()
            yield from self._follow(seen)
        except (Unreachable, Refused) as fault:
            yield from self._silence.lasts(fault, impatient=self._cancels > 1)
        if self._living():
            self._awake.wait(self._tick())

    def _tick(self) -> float:
        """Return how long to wait: a fiftieth of the job's age, so that a day's job costs the API server little."""
        age = time.monotonic() - self._started
        return min(max(self._patience.tick, age / 50), self._patience.slowest_tick)

    def _look(self) -> JobView:
        job = self._cluster.job(self._plan.job_id)
        if job is None:
            return view(self._plan, None, ())
        pods = self._cluster.pods(job)
        self._watch_for_another(pods)
        seen = view(self._plan, job, pods, self._further)
        moment = time.monotonic()
        if seen.waits_for_volume and moment - self._nudged_at > self._patience.nudged_every:
            self._nudged_at = moment
            self._cluster.nudge_claims(self._plan.job_id)
        is_due = self._asked_at is None or moment - self._asked_at > self._patience.asked_every
        if seen.started or moment - self._started < self._patience.unstarted or not is_due:
            return seen
        self._asked_at = moment
        about = seen.pod or (job.metadata.name if job.metadata is not None else None) or ""
        nodes = self._cluster.nodes() if seen.waits_for else None
        self._further = Further(events=self._cluster.events(about), nodes=nodes)
        return view(self._plan, job, pods, self._further)

    def _watch_for_another(self, pods: Sequence[Pod]) -> None:
        """See to it that one pod alone works on the payload: for one that is deleted, a Job makes another."""
        names = {pod_name(pod) for pod in pods}
        self._pod = self._pod or min(names, default="")
        if self._pod and names - {self._pod} and self._fatal is None and not self._cancels:
            self._condemn(Trouble(message=DELETED, status=JobStatus.TERMINATED))

    def _follow(self, seen: JobView) -> Iterator[Event]:
        """Pass on what the stages say, and note who has ended."""
        self._sent = self._sent or seen.has_sent
        # Not before the nodes were asked whether any of them could ever take it.
        if seen.waits_for and seen.may_get_well and self._asked_at is not None and not self._told_waiting:
            self._told_waiting = True
            yield JobLogged(level="INFO", message=f"the job waits for room: {seen.waits_for}")
        for stage in self._living():
            stage.view = seen.containers.get(stage.name, stage.view)
            yield from self._heard(stage, seen.pod)
        self._judge_trouble(seen.trouble, seen.pod)
        speaking = any(stage.may_still_speak(self._patience.last_words) for stage in self._living())
        if speaking and not self._cancels:
            return
        over = self._is_over(seen)
        if over and self._store is not None and not self._fetched:
            yield from self._fetch()
        for stage in self._living():
            yield from self._judged(stage, seen, over=over)

    def _heard(self, stage: PodStage, pod: str) -> Iterator[Event]:
        """Pass on what a stage says. A log that cannot be read is no reason to lose sight of the job."""
        try:
            for event in stage.read_log(self._cluster, pod):
                yield self._noted(event)
        except (Unreachable, Refused) as fault:
            if not self._told_unread:
                self._told_unread = True
                told = f"the log of stage {stage.name} cannot be read: {fault.message}; the job goes on"
                yield JobLogged(level="WARNING", message=told)
        for event in stage.take_for_working():
            yield self._noted(event)

    def _judged(self, stage: PodStage, seen: JobView, *, over: bool) -> Iterator[Event]:
        """Note the end of a stage that has ended, or never will run."""
        has_ended = stage.view.phase is Phase.ENDED
        has_failed = has_ended and bool(stage.view.exit_code)
        if has_failed and self._failed_at is None:
            if seen.is_vanishing and self._deleted_with is None and self._fatal is None:
                return  # it may have failed because its pod is being deleted, which the next looks tell
            self._failed_at = time.monotonic()
        # What cannot start is told at once; the others are still given their time.
        never = self._fatal is not None and self._fatal.stage == stage.name and stage.view.phase is Phase.ABSENT
        if not (over or never or (has_ended and self._may_be_judged(stage))):
            return
        if self._store is None and not self._cancels and stage.may_come_late(self._patience.settled):
            return
        if not has_ended and self._fatal is None:
            stage.end(self._why_gone(), canceled=True)
        yield self._conclude(stage)

    def _may_be_judged(self, stage: PodStage) -> bool:
        """Whether all is known of a stage that has ended: a failure, and the result, lie in the bucket first."""
        return self._store is None or (not stage.view.exit_code and stage is not self._stages[-1])

    def _is_over(self, seen: JobView) -> bool:
        """Whether nothing of the job runs any more."""
        # Whatever else a cluster may put into its pods, a proxy or an agent, never ends by itself.
        wanted = {stage.name for stage in self._stages} | (CARRIERS if self._store is not None else set())
        phases = {name: found.phase for name, found in seen.containers.items() if name in wanted}
        if Phase.RUNNING in phases.values():
            return False
        if OUT in phases and set(phases.values()) == {Phase.ENDED}:
            return True
        return not seen.exists or seen.finished or (self._deleted_with is not None and not seen.pod)

    def _noted(self, event: Event) -> Event:
        if isinstance(event, StageWorking):
            self._journal.working(event.stage)
        return event

    def _conclude(self, stage: PodStage) -> Event:
        # Of a pod that was evicted or deleted, nothing says that memory was the cause.
        ended = stage.conclude(
            # Of a job that failed, what the stages before have made is not in the bucket.
            shared=self._store is None or (self._fetched and (stage is self._stages[-1] or bool(stage.view.exit_code))),
            undisturbed=self._fatal is None,
            lost=self._why_lost(stage),
        )
        if stage.failed and self._plan.storage == "existingClaim" and stage.is_unseen:
            # What it writes is not where this machine looks. Said first: the first word is the job's.
            self._journal.blame(
                f"stage {stage.name} works, and nothing of it is seen here: is the claim mounted at "
                f"{self._plan.payload.parent}?"
            )
        self._journal.note(ended.record)
        if stage.failed and self._failed_at is None:
            self._failed_at = time.monotonic()
        return ended

    def _why_lost(self, stage: PodStage) -> str:
        """Say why the result of a stage that did its part is not in the bucket; empty where it is."""
        if self._store is None or stage is not self._stages[-1] or self._sent or self._fatal is None:
            return ""
        return "" if self._fatal.stage else self._fatal.message

    def _why_gone(self) -> str:
        first = next((stage.name for stage in self._stages if stage.failed), None)
        if first is not None:
            return f"ended, since stage {first} failed"
        self._journal.blame(_GONE)
        return _GONE

    def _judge_trouble(self, trouble: Trouble | None, pod: str) -> None:
        """Give trouble its time; then it ends the job."""
        if self._cancels or self._fatal is not None or self._failed_at is not None:
            return
        if not self._troubled.is_over(trouble) or trouble is None:
            return
        if trouble.container:
            trouble = replace(trouble, message=f"{trouble.message}{self._last_word(pod, trouble.container)}")
        self._condemn(trouble)

    def _condemn(self, trouble: Trouble) -> None:
        """End the job for a trouble; `_obey` deletes it."""
        self._fatal = trouble
        self._journal.blame(f"stage {trouble.stage} failed: {trouble.message}" if trouble.stage else trouble.message)
        self._journal.status = trouble.status
        for stage in self._living():
            if stage.view.phase is Phase.ENDED:
                continue  # it has its own word
            if trouble.stage and stage.name != trouble.stage:
                stage.end(f"ended, since stage {trouble.stage} failed", canceled=True)
            else:
                stage.end(trouble.of_stage or trouble.message)

    def _last_word(self, pod: str, container: str) -> str:
        """Return what a container of ours said last, which is no stage and leaves no lock."""
        lines: Sequence[str] = ()
        with contextlib.suppress(Unreachable, Refused):
            lines = self._cluster.log(pod, container, seconds=_A_DAY)
        for line in reversed(lines):
            try:
                entry = json.loads(line.partition(" ")[2])
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("job") == self._plan.job_id and entry.get("message"):
                return f": {entry['message']}"
        return ""

    def _obey(self) -> None:
        """Delete what must not go on: canceled, in trouble, or behind a failed stage."""
        moment = time.monotonic()
        if self._cancels:
            for stage in self._living():
                stage.end("canceled", canceled=True)
        # Those after a failed stage read its lock and stop by themselves; whoever has not by now is ended.
        patience = self._limits.patience if self._store is None else self._patience.carrying
        late = self._failed_at is not None and moment - self._failed_at > patience
        if not (self._cancels or self._fatal is not None or late):
            return
        urgency = min(self._cancels, 2)
        if self._deleted_with is not None and self._deleted_with >= urgency:
            return
        job = self._cluster.job(self._plan.job_id)
        if job is not None:
            # A pod of which nothing runs has nobody to ask; its node may be busy with an image that does not come.
            at_once = urgency > 1 or all(stage.view.phase is Phase.ABSENT for stage in self._stages)
            self._cluster.delete(job, grace=0 if at_once else self._grace)
        self._deleted_with = urgency

    # ---------------------------------------------------------------- its end

    def _fetch(self) -> Iterator[Event]:
        if self._store is None or not self._installed or self._cancels:
            return
        yield JobLogged(level="INFO", message="fetching the result from the bucket")
        try:
            self._store.fetch()
            self._fetched = True
        except (ClaraError, OSError) as fault:
            # A job that failed has its own word, and may have sent nothing.
            self._stranded = not any(stage.view.exit_code for stage in self._stages) and self._fatal is None
            if self._stranded:
                self._journal.blame(f"the result cannot be fetched: {fault}")
                for stage in self._living():
                    stage.end("its result cannot be fetched")

    def _tidy(self) -> Iterator[Event]:
        """Remove what the job has left; what cannot be removed now is removed before the same job runs again."""
        if self._keep and self._installed and self._deleted_with is None:
            kept = "the cluster, and its payload in the bucket" if self._store is not None else "the cluster"
            yield JobLogged(level="INFO", message=f"the release is kept in {kept}, to look at")
            return
        yield from self._removed("its release", self._release.uninstall)
        # Also a pod that somebody has parted from its Job, which goes on alone.
        yield from self._removed("its pod", lambda: self._cluster.clear(self._plan.job_id, grace=self._grace))
        if self._stranded:
            yield JobLogged(level="WARNING", message=f"the result is left in {self._plan.store}")
        elif self._store is not None:
            yield from self._removed("its payload in the bucket", self._store.remove)
        if self._cancels:  # who canceled a job wants to know that it is over
            yield from self._removed("something of it", self._wait_until_gone)

    def _removed(self, what: str, remove: Callable[[], object]) -> Iterator[Event]:
        try:
            remove()
        except (ClaraError, OSError) as fault:
            yield JobLogged(level="WARNING", message=f"job {self._plan.job_id}: {what} is left: {fault}")

    def _end(self) -> JobEnded:
        self._ended = True
        return JobEnded(job=self._journal.end(canceled=self._cancels > 0))


def _is_unfinished(payload: Payload) -> bool:
    """Whether the record of the job says that nobody has seen its end."""
    try:
        recorded = json.loads(payload.job.read_text(encoding="utf-8"))
        return bool(recorded["state"] == JobState.RUNNING)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_going(job: ClusterJob) -> bool:
    """Whether somebody has deleted a Job that is not gone yet."""
    return job.metadata is not None and job.metadata.deletionTimestamp is not None


def _instance(job: ClusterJob) -> str:
    labels = (job.metadata.labels if job.metadata is not None else None) or {}
    return str(labels.get("app.kubernetes.io/instance", "RELEASE"))

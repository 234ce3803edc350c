"""How long a job in a cluster may be in trouble, and the cluster silent, before that ends the watching."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from clara_wf.model.events import Event, JobLogged
from clara_wf.runners.cluster import Refused, Unreachable
from clara_wf.runners.cluster_state import Trouble


@dataclass(frozen=True, kw_only=True)
class ClusterLimits:
    """How patient the runner is with a cluster; seconds all."""

    tick: float = 0.2  # between two looks at a young job; an old one is looked at less often
    slowest_tick: float = 2.0
    silence: float = 600.0  # that the API server may be away
    refusal: float = 30.0  # that it may refuse what it has let this user do before
    # That an earlier job's objects may take to go away: some kubelets look at a pod only every 60 to 90 s.
    cleared: float = 150.0
    carrying: float = 20.0  # that the logs of a failed job may take on their way to the bucket
    last_words: float = 10.0  # that the log of a stage that has ended may be out of reach
    # That the lock and the result of a stage that ended well may take to be seen: caches of a shared folder.
    settled: float = 3.0
    unstarted: float = 3.0  # after which the cluster is asked why a pod does not start
    nudged_every: float = 1.0  # between two reminders of a volume that is not bound
    asked_every: float = 1.0  # between two such questions


class TroubleClock:
    """Says when a trouble has lasted for as long as it may."""

    def __init__(self) -> None:
        self._kind = ""
        self._since = 0.0

    def is_over(self, trouble: Trouble | None) -> bool:
        """Take what trouble there is now, None being none; return whether it has lasted too long."""
        if trouble is None:
            self._kind = ""
            return False
        moment = time.monotonic()
        if trouble.kind != self._kind:
            self._kind, self._since = trouble.kind, moment
        return moment - self._since >= trouble.patience


class Silence:
    """Notes when the API server is away and when it is back.

    Parameters
    ----------
    job_id : str
        The job that is watched, for who reads the error.
    limits : ClusterLimits
        How long it may be away, or refuse.
    """

    def __init__(self, job_id: str, limits: ClusterLimits) -> None:
        self._job_id = job_id
        self._limits = limits
        self._answered = time.monotonic()
        self._is_away = False

    def broken(self) -> Iterator[Event]:
        """Note an answer."""
        away, self._answered = time.monotonic() - self._answered, time.monotonic()
        if self._is_away:
            self._is_away = False
            yield JobLogged(level="INFO", message=f"the cluster answers again, after {away:.0f} s")

    def lasts(self, fault: Unreachable | Refused, *, impatient: bool) -> Iterator[Event]:
        """Note that there was no answer, or none that helps.

        Raises
        ------
        Unreachable
            It has been away for too long, or the user does not want to wait. The job goes on by itself.
        """
        if not self._is_away:
            self._is_away = True
            yield JobLogged(level="WARNING", message=f"{fault.message}; the job goes on there, waiting for it")
        silence = time.monotonic() - self._answered
        if impatient or silence > (self._limits.refusal if isinstance(fault, Refused) else self._limits.silence):
            raise Unreachable(
                f"{fault.message}, for {silence:.0f} s; job {self._job_id} may go on there",
                remedy="Start this job again, by its id, when the cluster is back: it is found there",
            ) from fault

"""The payload of one job on its way through a bucket."""

from __future__ import annotations

from collections.abc import Callable

from clara_wf.bucket.transfer import fetch, remove, send
from clara_wf.model.plan import Plan


class PayloadStore:
    """Carries the payload of a plan: the input there, the rest back.

    Parameters
    ----------
    plan : Plan
        Of a job whose payload travels: it names the job's folder of the bucket.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._input = plan.input.relative_to(plan.payload).as_posix()

    def send(self, progress: Callable[[float], None] = lambda _: None) -> None:
        """Send the input.

        Parameters
        ----------
        progress : callable, optional
            Told the fraction that is done.

        Raises
        ------
        InputError
            The input holds what cannot be sent, or the store refuses it.
        LackError
            The store does not answer, or refuses these keys.
        UsageError
            The URL or the endpoint is wrong.
        OSError
            A file cannot be read.
        """
        send(self._plan.input, f"{self._plan.store}/{self._input}", self._plan.store_endpoint, progress=progress)

    def fetch(self, progress: Callable[[float], None] = lambda _: None) -> None:
        """Fetch what the stages left: results, locks and logs. The input is here.

        Parameters
        ----------
        progress : callable, optional
            Told the fraction that is done.

        Raises
        ------
        InputError
            There is nothing, an object's name leads out of the payload, or the store refuses the request.
        LackError
            The store does not answer, or refuses these keys.
        UsageError
            The URL or the endpoint is wrong.
        OSError
            A file cannot be written.
        """
        plan = self._plan
        fetch(plan.store, plan.payload, plan.store_endpoint, skip=[self._input], progress=progress)

    def remove(self) -> None:
        """Remove the job's folder of the bucket; none is as good.

        Raises
        ------
        InputError
            The store refuses the request.
        LackError
            The store does not answer, or refuses these keys.
        UsageError
            The URL or the endpoint is wrong.
        OSError
            The store is a folder of this machine, which cannot be written.
        """
        remove(self._plan.store, self._plan.store_endpoint)

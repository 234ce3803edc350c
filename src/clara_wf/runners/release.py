"""What the Kubernetes runner is given from outside: the release that it installs, and what carries the payload."""

from __future__ import annotations

from typing import Protocol


class Release(Protocol):
    """The objects of one job in a cluster, installed and removed as one."""

    def install(self) -> None:
        """Install it.

        Raises
        ------
        ClaraError
            There is one of that name, the cluster refuses it, or does not answer.
        """

    def uninstall(self) -> bool:
        """Remove it; False if there was none."""


class Store(Protocol):
    """Carries the payload to where the pods see it, and their results back."""

    def send(self) -> None:
        """Send the input.

        Raises
        ------
        ClaraError or OSError
            It cannot be sent.
        """

    def fetch(self) -> None:
        """Fetch the results, the locks and the logs.

        Raises
        ------
        ClaraError or OSError
            They cannot be had, or cannot be written here.
        """

    def remove(self) -> None:
        """Remove all that was carried: images of patients stay nowhere longer than they must.

        Raises
        ------
        ClaraError or OSError
            It cannot be removed.
        """

"""What is learned of a container while it runs, without one."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from clara_wf.runners import container_watch
from clara_wf.runners.container_watch import ContainerWatch, Figures

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system does not tell the end of a process")


class Clock:
    """Passes while it is waited for, and then alone."""

    def __init__(self, end: float) -> None:
        self.pauses: list[float] = []
        self._end = end

    def monotonic(self) -> float:
        return 1000 + sum(self.pauses)

    def wait(self, pause: float) -> bool:
        self.pauses.append(pause)
        return sum(self.pauses) > self._end


def test_a_container_that_is_being_made_is_looked_for_often_and_one_out_of_sight_seldom(tmp_path, monkeypatch):
    clock = Clock(60)
    (tmp_path / "id").write_text("0123")
    watch = ContainerWatch(tmp_path / "id")
    monkeypatch.setattr(watch, "_over", clock)
    monkeypatch.setattr(container_watch, "time", clock)
    monkeypatch.setattr(container_watch, "_first_process", lambda _: None)
    assert watch._find() is None
    while_it_is_made = [pause for number, pause in enumerate(clock.pauses) if sum(clock.pauses[:number]) < 9]
    assert max(while_it_is_made) <= 0.05
    assert clock.pauses[-1] == 1.0


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (0, None, None),  # the figures went with the container: nobody saw the end
        (0, 0, 0),
        (0, 1, 1),
        (1, None, 1),
        (None, None, None),
    ],
)
def test_that_nothing_was_killed_before_the_end_says_nothing_of_the_end(tmp_path, monkeypatch, before, after, told):
    program = subprocess.Popen(["sleep", "60"])
    looks = [Figures(peak=7, cpu_s=0.1, kills=before)]

    def look(_groups):
        if not looks:
            return Figures(kills=after)
        program.send_signal(signal.SIGKILL)
        return looks.pop()

    monkeypatch.setattr(container_watch, "_figures_of", look)
    monkeypatch.setattr(ContainerWatch, "_find", lambda _: program.pid)
    watch = ContainerWatch(tmp_path / "id")
    watch.run()
    program.wait()
    assert watch._figures == Figures(peak=7, cpu_s=0.1, kills=told)

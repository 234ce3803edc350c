"""Runners carry out a `Plan`: they start its stages, watch them, and say what became of the job.

::

    with ProcessRunner().run(plan) as run, canceling_on_signals(run):
        for event in run:
            ...
    run.job

Here belongs what a kind of runner needs: where container paths lie on this machine, starting and ending programs,
limits of memory and time, the record of the run. A runner knows a stage by its contract alone (variables, folders,
locks, log, exit code): it imports no stage, reads no chart, and prints nothing. What is shown of a run is its reader's
choice.
"""

from clara_wf.runners.container import ContainerRunner
from clara_wf.runners.limits import Limits
from clara_wf.runners.memory import MemoryRunner
from clara_wf.runners.process import ProcessRunner
from clara_wf.runners.runner import Capabilities, Run, Runner, canceling_on_signals

__all__ = [
    "Capabilities",
    "ContainerRunner",
    "Limits",
    "MemoryRunner",
    "ProcessRunner",
    "Run",
    "Runner",
    "canceling_on_signals",
]

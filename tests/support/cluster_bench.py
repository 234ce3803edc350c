"""A workspace with a workflow of small stages, and the program that runs it in a cluster."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lightkube import Client
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim, Pod
from program import Ended, Program

NAMESPACE = "clara-wf-test"
#: What stages do unless a test says otherwise: hand on what they read, and add their name.
COPY = """
for file in context.inputs.iterdir():
    (context.outputs / file.name).write_bytes(file.read_bytes() + context.stage.encode())
"""
#: Shows that it works, and is at it until the test lets it go on.
HELD = """
(context.outputs / "started").write_text("")
end = time.monotonic() + 120
while not (context.outputs / "go").exists() and time.monotonic() < end:
    time.sleep(0.05)
(context.outputs / "file.txt").write_text("held")
"""
STAGE = """
import os, pathlib, sys, time
from clara_wf.model.errors import InputError
from clara_wf.stage import main

def execute(context, prepared):
{body}

if __name__ == "__main__":
    main(execute=execute)
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A workspace with a workflow `chain` of small stages, and the program that runs it in the cluster."""

    program: Program
    client: Client
    input: Path
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def payload(self) -> Path:
        return self.program.workspace / "payloads" / self.job_id

    def arguments(self, output: Path, *more: str) -> list[str | Path]:
        return [
            "run", "chain", "--input", self.input, "--output", output, "--runner", "kubernetes",
            "--namespace", NAMESPACE, "--job", self.job_id, *more,
        ]  # fmt: skip

    def run(self, output: Path, *more: str, **variables: str) -> Ended:
        return self.program(*self.arguments(output, *more), **{"KUBECONFIG": os.environ["KUBECONFIG"], **variables})

    def start(self, output: Path, *more: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.program.command(*self.arguments(output, *more)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.program.workspace,
            env=self.program.environment({"KUBECONFIG": os.environ["KUBECONFIG"], **variables}),
        )

    def objects(self) -> list[str]:
        """Return what there is of the job in the cluster."""
        labels = {"clara-workflow/job-id": self.job_id}
        found = [
            kind.__name__
            for kind in (Job, Pod, PersistentVolumeClaim)
            for _ in self.client.list(kind, namespace=NAMESPACE, labels=labels)
        ]
        return found + ["PersistentVolume" for _ in self.client.list(PersistentVolume, labels=labels)]

    def wait_until_gone(self, seconds: float = 150) -> None:
        """Wait until nothing is left: a kubelet may look at a pod that is to go no more often than every 60 to 90 s."""
        deadline = time.monotonic() + seconds
        while left := self.objects():
            assert time.monotonic() < deadline, f"{left} of the job are still there"
            time.sleep(0.1)

    def wait_until_running(self, stage: str) -> None:
        """Wait until a stage has written `started` beside its output."""
        wait_for((self.payload / stage / "output" / "started").exists, 60)

    def let_go(self, stage: str) -> None:
        """Let a stage that does `HELD` go on."""
        (self.payload / stage / "output" / "go").touch()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def wait_until_told(process: subprocess.Popen[str], text: str) -> None:
    """Read what a program says until it says this."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}")


def write_stage(folder: Path, stage: str, body: str) -> None:
    text = STAGE.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    (folder / f"stage_{stage}.py").write_text(text)

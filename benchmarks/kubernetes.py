"""The Kubernetes runner beside bare pods and bare Jobs on the same cluster, in one run: `kubernetes [TURNS]`.

1. A workflow of three stages that only hand on what they read: by the runner in this process, and by `clara-wf run`.
   The peers are a pod with one of the stages and a pod with all three: the same image, mounts, variables and commands,
   created through the API and watched. In each turn all of them run one after the other. What counts is the median
   beside the slowest pod of one stage.
2. Twenty such jobs handed in at once, by threads that each have a runner; their requests let a few run at a time. The
   peer is twenty Jobs with the same pods.
3. The requests that one job costs the API server, as that counts them.

It needs KUBECONFIG and, in that cluster, the image local/python-base:3.11. The cluster's node is this machine: the
checkout is mounted into the pods. All is done in a namespace that is removed in the end, also after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightkube import Client, KubeConfig
from support.kubernetes_peer import make_namespace, pod_spec, remove_namespace, run_jobs, run_pod

from clara_wf.chart.release import JobRelease
from clara_wf.chart.render import job_values, plan_job, render
from clara_wf.chart.request import JobRequest
from clara_wf.model.events import StageEnded, StageWorking
from clara_wf.model.plan import Plan
from clara_wf.runners.kubernetes import Cluster, KubernetesRun, KubernetesRunner
from clara_wf.runners.sharing import share_folders, stage_user

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from cluster_bench import COPY, write_stage  # noqa: E402
from cluster_chart import mount_checkout  # noqa: E402
from program import add_workflow  # noqa: E402

NAMESPACE = "clara-wf-benchmark"
STAGES = ("one", "two", "three")
GOAL_SECONDS = 2.0
TURNS = 5
JOBS, AT_ONCE = 20, 2
#: In which is counted what the cluster asks for itself.
IDLE_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A workspace with a workflow `no-op`, and the cluster."""

    folder: Path
    client: Client
    cpu: float  # that the node gives to pods

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def chart(self) -> Path:
        return self.workspace / "charts/clara-workflow"

    def request(self, *, at_once: int = 0) -> JobRequest:
        """Return a new job; of which the node has room for `at_once`, if that is given."""
        user, group = stage_user()
        extra: dict[str, Any] = {"podSecurityContext": {"runAsUser": user, "runAsGroup": group}}
        if at_once:
            share = f"{int(self.cpu * 1000 / at_once / len(STAGES))}m"
            extra["stages"] = {stage: {"resources": {"requests": {"cpu": share}}} for stage in STAGES}
        identity = str(uuid.uuid4())
        return JobRequest(
            workflow="no-op",
            job_id=identity,
            job_name="no-op",
            payloads=self.workspace / "payloads",
            models=self.workspace / "models",
            extra=extra,
        )

    def plan(self, request: JobRequest) -> Plan:
        """Return the plan of a job whose input is in place."""
        plan = plan_job(self.chart, request)
        plan.input.mkdir(parents=True)
        (plan.input / "note.txt").write_text("0")
        return plan

    def run(self, plan: Plan, release: JobRelease | Stopwatch) -> KubernetesRun:
        """Return the run of a job."""
        return KubernetesRunner(Cluster(self.client, NAMESPACE), lambda _: release).run(plan)

    def release(self, request: JobRequest) -> JobRelease:
        return JobRelease(chart=self.chart, request=request, namespace=NAMESPACE)

    def pod(self, request: JobRequest, *, only: str = "") -> dict[str, Any]:
        """Return the pod that the job would be, its payload in place."""
        share_folders(self.plan(request))
        objects = render(self.chart, request.release, job_values(self.chart, request), namespace=NAMESPACE)
        job = next(found.body for found in objects if found.kind == "Job")
        return pod_spec(job, self.workspace / "payloads" / request.job_id, only=only)

    def requests(self) -> Counter[tuple[str, str]]:
        """Return how many requests the API server has had, by verb and resource."""
        counted: Counter[tuple[str, str]] = Counter()
        text = self.client._client._client.get("/metrics").text  # noqa: SLF001 - it knows objects only
        for labels, number in re.findall(r"^apiserver_request_total\{(.*?)\} (\S+)", text, re.MULTILINE):
            found = dict(re.findall(r'(\w+)="(.*?)"', labels))
            resource = "/".join(filter(None, (found["resource"], found["subresource"])))
            counted[found["verb"], resource] += round(float(number))
        return counted


class Stopwatch:
    """A release that says how long Helm takes."""

    def __init__(self, release: JobRelease) -> None:
        self._release = release
        self.installed = self.uninstalled = 0.0

    def install(self) -> None:
        started = time.monotonic()
        self._release.install()
        self.installed = time.monotonic() - started

    def uninstall(self) -> bool:
        started = time.monotonic()
        found = self._release.uninstall()
        self.uninstalled = time.monotonic() - started
        return found


def main(turns: int) -> None:
    """Run all parts."""
    if not os.environ.get("KUBECONFIG"):
        sys.exit("KUBECONFIG names no cluster")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bench() as made:
        overhead(made, turns)
        queue(made)
        requests(made)


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Make the workspace and the namespace, and remove both."""
    from lightkube.resources.core_v1 import Node

    client = Client(config=KubeConfig.from_env(), field_manager="clara-wf-benchmark")
    nodes = [node.status.allocatable or {} for node in client.list(Node) if node.status is not None]
    cpu = sum(_cpus(node["cpu"]) for node in nodes)
    with tempfile.TemporaryDirectory() as name:
        made = Bench(folder=Path(name), client=client, cpu=cpu)
        _lay_out(made)
        make_namespace(client, NAMESPACE)
        try:
            yield made
        finally:
            remove_namespace(client, NAMESPACE)


def _cpus(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _lay_out(made: Bench) -> None:
    shutil.copytree(ROOT / "charts", made.workspace / "charts")
    code = made.workspace / "code"
    code.mkdir()
    mount_checkout(made.workspace, code)
    environment = os.environ | {"CLARA_WF_WORKSPACE": str(made.workspace)}
    for stage in STAGES:
        command = [ROOT / "clara-wf", "cs", stage, "--image", "local/python-base:3.11"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        write_stage(code, stage, COPY)
    values = made.chart / "values.yaml"
    text = values.read_text()
    for stage in STAGES:
        head, mark, rest = text.partition(f"##BEGIN_{stage}##")
        text = head + mark + rest.replace("command: []", f'command: ["python", "-m", "stage_{stage}"]', 1)
    values.write_text(text)
    add_workflow(made.workspace, "no-op", list(STAGES))
    (made.folder / "in").mkdir()
    (made.folder / "in/note.txt").write_text("0")


# -------------------------------------------------------------------- one job


def overhead(made: Bench, turns: int) -> None:
    """Print what a job costs beside bare pods."""
    _runner_seconds(made)  # Helm is loaded and the image is there, for whoever comes first
    found: dict[str, list[float]] = {}
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns} ...", file=sys.stderr, flush=True)
        once = {
            "pod, one stage": run_pod(made.client, NAMESPACE, f"one-{turn}", made.pod(made.request(), only="one")),
            "pod, all stages": run_pod(made.client, NAMESPACE, f"all-{turn}", made.pod(made.request())),
            **_runner_seconds(made),
            "command": _command_seconds(made, turn),
        }
        for title, seconds in once.items():
            found.setdefault(title, []).append(seconds)
    slowest = max(found["pod, one stage"])
    for title in ("pod, one stage", "pod, all stages"):
        print(f"bare {title}: median {_spread(found[title])}")
    for title in ("runner", "command"):
        more = statistics.median(found[title]) - slowest
        held = "held" if more <= GOAL_SECONDS else "NOT held"
        print(
            f"{title}: median {_spread(found[title])}; ratio to the pod with all stages "
            f"{statistics.median(found[title]) / statistics.median(found['pod, all stages']):.2f}; "
            f"over the slowest pod of one stage {more:+.2f} s; goal: at most {GOAL_SECONDS} s: {held}"
        )
    parts = ("taken", "Helm installs", "first stage works", "last stage ended", "Helm removes")
    print(
        "the runner, after one another: "
        + ", ".join(f"{part} {statistics.median(found[part]):.2f} s" for part in parts)
    )


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s of {len(seconds)} (from {min(seconds):.2f} to {max(seconds):.2f})"


def _runner_seconds(made: Bench) -> dict[str, float]:
    request = made.request()
    plan = made.plan(request)
    release = Stopwatch(made.release(request))
    started = time.monotonic()
    working = ended = 0.0
    with made.run(plan, release) as run:
        taken = time.monotonic()
        for event in run:
            if isinstance(event, StageWorking):
                working = working or time.monotonic()
            if isinstance(event, StageEnded):
                ended = time.monotonic()
    whole = time.monotonic() - started
    _check(run)
    return {
        "runner": whole,
        "taken": taken - started,
        "Helm installs": release.installed,
        "first stage works": working - taken - release.installed,
        "last stage ended": ended - working,
        "Helm removes": release.uninstalled,
    }


def _check(run: KubernetesRun) -> None:
    assert run.job.succeeded, run.job.message


def _command_seconds(made: Bench, turn: int) -> float:
    output = made.folder / f"out{turn}"
    command = [ROOT / "clara-wf", "run", "no-op", "-i", made.folder / "in", "-o", output]
    command += ["--runner", "kubernetes", "--namespace", NAMESPACE]
    started = time.monotonic()
    done = subprocess.run(command, env=_environment(made), check=False, capture_output=True, text=True)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert (output / "note.txt").read_text() == "0onetwothree"
    return seconds


def _environment(made: Bench) -> Mapping[str, str]:
    return os.environ | {"CLARA_WF_WORKSPACE": str(made.workspace)}


# -------------------------------------------------------------------- many jobs


def queue(made: Bench) -> None:
    """Print how many jobs a minute get through."""
    orders = [made.request(at_once=AT_ONCE) for _ in range(JOBS)]
    plans = [made.plan(request) for request in orders]
    runs = [made.run(plan, made.release(request)) for plan, request in zip(plans, orders, strict=True)]
    pods = [made.pod(made.request(at_once=AT_ONCE)) for _ in range(JOBS)]
    print(f"{JOBS} jobs at once ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    with ThreadPoolExecutor(JOBS) as threads:
        try:
            for _ in threads.map(_carry_out, runs):
                pass
        except BaseException:
            for run in runs:
                run.cancel()
            raise
    ours = time.monotonic() - started
    for run in runs:
        _check(run)
    print(f"{JOBS} bare Jobs at once ...", file=sys.stderr, flush=True)
    theirs = run_jobs(made.client, NAMESPACE, pods)
    print(
        f"{JOBS} jobs handed in at once, requests for {AT_ONCE} at a time on {made.cpu:g} cores: "
        f"{JOBS / ours * 60:.1f} a minute; bare Jobs {JOBS / theirs * 60:.1f} a minute; ratio {theirs / ours:.2f}"
    )


def _carry_out(run: KubernetesRun) -> None:
    with run:
        for _ in run:
            pass


def requests(made: Bench) -> None:
    """Print what one job asks the API server, without what the cluster asks for itself."""
    idle = made.requests()
    time.sleep(IDLE_SECONDS)
    started, before = time.monotonic(), made.requests()
    _runner_seconds(made)
    seconds, after = time.monotonic() - started, made.requests()
    share = seconds / IDLE_SECONDS
    more = {key: after[key] - before[key] - round(share * (before[key] - idle[key])) for key in after}
    counted = sorted(((number, *key) for key, number in more.items() if number > 0), reverse=True)
    listed = ", ".join(f"{number} {verb} {resource}" for number, verb, resource in counted)
    whole = sum(number for number, *_ in counted)
    print(f"requests to the API server for one job of {seconds:.1f} s: {whole}: {listed}")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else TURNS)
    except KeyboardInterrupt:
        sys.exit(130)

"""What a stage in a container sees, may do and may use."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
from pathlib import Path

from clara_wf.model.events import StageWorking
from clara_wf.model.plan import Mount, Plan, Resources
from clara_wf.model.states import JobStatus
from clara_wf.runners import ContainerRunner, Limits

from .conftest import any_engine

LIMITS = Limits(tick=0.05, grace=0.6, patience=0.4, overtime=0.4, output_bytes=100_000, log_bytes=300_000)
WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
#: Writes down what it finds.
TELL = """
import json
def attempt(path):
    try:
        open(path, "w").close()
    except OSError as fault:
        return fault.strerror
    return "written"
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
facts = {
    "user": [os.getuid(), os.getgid()],
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")],
    "new privileges": status["NoNewPrivs"],
    "root": attempt("/new"),
    "source": attempt(os.environ["PYTHONPATH"] + "/new"),
    "input": attempt(context.inputs / "n"),
    "scratch": attempt("/tmp/new"),
    "network": sorted(os.listdir("/sys/class/net")),
    "environment": dict(os.environ),
    "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
}
(context.outputs / "facts.json").write_text(json.dumps(facts))
"""


def carry_out(engine, plan):
    with ContainerRunner(engine, limits=LIMITS).run(plan) as run:
        *_, last = run
    return last.job


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def facts_of(engine, plan):
    job = carry_out(engine, plan)
    assert job.succeeded, job
    return json.loads((plan.output / "facts.json").read_text())


def with_mount(plan: Plan, path: str, **changes) -> Plan:
    """Change the mount that the first stage has there."""
    stage = plan.stages[0]
    mounts = tuple(dataclasses.replace(m, **changes) if m.path == path else m for m in stage.mounts)
    return dataclasses.replace(plan, stages=(dataclasses.replace(stage, mounts=mounts), *plan.stages[1:]))


def test_a_stage_sees_and_may_do_what_the_manifest_says_and_no_more(make_contained, engine, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("NVIDIA_CLARA_LEFTOVER", "1")
    plan = make_contained({"one": TELL}, variables={"TRTISURI": "a=b, c\n$HOME \"d'", "NETWORK": "none"})
    plan = with_mount(plan, "/app/input", read_only=True)
    before = (plan.input.stat(), (plan.input / "in.txt").stat())
    facts = facts_of(engine, plan)
    owner = os.getuid() or 10001
    assert facts["user"] == [owner, os.getgid() or 10001]
    assert facts["capabilities"] == [0, 0, 0]
    assert facts["new privileges"] == "1"
    assert {facts[where] for where in ("root", "source", "input")} == {"Read-only file system"}
    assert facts["scratch"] == "written"
    assert facts["network"] == ["lo"]
    assert len(facts["processes"]) < 5
    of_the_image = {"PATH", "LANG", "HOME", "HOSTNAME", "TERM", "container"}
    told = {name: value for name, value in facts["environment"].items() if name not in of_the_image}
    assert told == plan.stages[0].environment
    # The result belongs to whoever made it, and the input to whom it did.
    assert {(plan.output / "facts.json").stat().st_uid, plan.output.stat().st_uid} == {owner}
    for path, was in zip((plan.input, plan.input / "in.txt"), before, strict=True):
        assert (path.stat().st_uid, path.stat().st_mode) == (was.st_uid, was.st_mode)


def test_a_stage_that_asks_for_the_network_reaches_a_server_of_this_machine(make_contained, engine):
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = f"""
        import socket
        with socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=10) as peer:
            (context.outputs / "result.txt").write_bytes(peer.recv(100))
        """

        def answer():
            with server.accept()[0] as peer:
                peer.sendall(b"hello")

        threading.Thread(target=answer, daemon=True).start()
        plan = make_contained({"one": body}, variables={"NETWORK": "trtis"})
        assert carry_out(engine, plan).succeeded
        assert (plan.output / "result.txt").read_text() == "hello"


def test_a_stage_over_its_memory_limit_is_reported_with_limit_and_peak(make_contained, engine):
    hog = "hold = []\nfor _ in range(400):\n    hold.append(b'x' * 2**20)\ntime.sleep(60)"
    job = carry_out(engine, make_contained({"one": hog}, resources=Resources(memory=128 * 2**20)))
    assert job.message == "stage one failed: ran out of memory: its limit is 0.12 GiB, it had used 0.12 GiB"
    record = job.stages[0]
    assert record.exit_code == 137
    assert 100 * 2**20 < record.peak_bytes <= 128 * 2**20
    assert record.cpu_s > 0


@any_engine
def test_a_stage_fails_for_lack_of_memory_also_where_another_of_its_processes_had_to_end(make_contained, engine):
    hog = "python3 -c 'hold = [b\"x\" * 2**20 for _ in range(400)]'; exit 4"
    job = carry_out(engine, make_contained({"one": ["sh", "-c", hog]}, resources=Resources(memory=128 * 2**20)))
    assert job.message.startswith("stage one failed: ran out of memory: its limit is 0.12 GiB")
    assert job.stages[0].exit_code == 4


def test_a_stage_within_its_limit_that_was_killed_is_not_said_to_be_out_of_memory(make_contained, engine):
    kill = "until [ -e /app/output/go ]; do sleep 0.05; done; sh -c 'kill -9 $$'; exit $?"
    plan = make_contained({"one": ["sh", "-c", kill]}, resources=Resources(memory=128 * 2**20))
    with ContainerRunner(engine, limits=LIMITS).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                # Of a container that ends before anybody has seen it nobody knows why.
                wait_until(lambda: run._stages["one"]._child._watch._figures.peak)
                (plan.payload / "one" / "output" / "go").touch()
    assert run.job.message.startswith("stage one failed: ended by SIGKILL")


def test_what_a_stage_used_is_recorded(make_contained, engine):
    body = f"hold = b'x' * 60 * 2**20\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n{WRITE}"
    record = carry_out(engine, make_contained({"one": body})).stages[0]
    assert record.exit_code == 0
    assert 60 * 2**20 < record.peak_bytes < 200 * 2**20
    assert 0.3 < record.cpu_s < 3
    assert record.wall_s >= record.work_s > 0.3


def test_a_limit_of_cores_holds_and_one_beyond_the_machine_is_the_machine(make_contained, engine):
    body = """
    for quota, period in (("cpu.max", "cpu.max"), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        if os.path.exists(f"/sys/fs/cgroup/{quota}"):
            numbers = (open(f"/sys/fs/cgroup/{quota}").read() + " " + open(f"/sys/fs/cgroup/{period}").read()).split()
            (context.outputs / "cores").write_text(str(int(numbers[0]) / int(numbers[1])))
    """
    plan = make_contained({"one": body, "two": body}, resources=Resources(cpu=0.5))
    one, two = plan.stages
    plan = dataclasses.replace(plan, stages=(one, dataclasses.replace(two, resources=Resources(cpu=4096.0))))
    assert carry_out(engine, plan).succeeded
    told = [float((plan.payload / name / "output" / "cores").read_text()) for name in ("one", "two")]
    assert told == [0.5, float(os.cpu_count() or 1)]


def test_paths_of_any_kind_are_mounted(make_contained, engine, tmp_path):
    name = 'a space, a comma: Grüße "quo"ted",readonly'
    folder = tmp_path / name
    folder.mkdir()
    (folder / "in.txt").write_text(name)
    body = "(context.outputs / 'result.txt').write_text((context.inputs / 'in.txt').read_text())"
    plan = with_mount(make_contained({"one": body}), "/app/input", host=folder)
    moved = dataclasses.replace(plan, payload=plan.payload.parent / name)
    moved = with_mount(moved, "/app/output", host=moved.payload / "one" / "output")
    for what in ("locks", "logs"):
        moved = with_mount(moved, f"/app/{what}", host=moved.payload / what)
    assert carry_out(engine, moved).succeeded
    assert (moved.payload / "one" / "output" / "result.txt").read_text() == name


@any_engine
def test_the_users_folder_may_be_linked_as_the_input(make_contained, engine, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "in.txt").write_text("theirs")
    body = "(context.outputs / 'result.txt').write_text((context.inputs / 'in.txt').read_text())"
    plan = make_contained({"one": body})
    (plan.input / "in.txt").unlink()
    plan.input.rmdir()
    plan.input.symlink_to(theirs)
    assert carry_out(engine, plan).succeeded
    assert (plan.output / "result.txt").read_text() == "theirs"
    assert theirs.stat().st_uid == os.getuid()


def test_arguments_are_those_of_the_manifest_and_without_a_command_the_images_own_stays(make_contained, engine):
    tell = 'printf "<%s>" "$@" > /app/output/told; touch $NVIDIA_CLARA_LOCKDIR/$NVIDIA_CLARA_LOCKNAME'
    plan = make_contained({"one": []})
    # The image has no entry point, so the first argument is the program.
    args = ("sh", "-c", tell, "sh", "--text=a b", "$HOME", "", "--", "-v", "two\nlines")
    stage = dataclasses.replace(plan.stages[0], args=args)
    assert carry_out(engine, dataclasses.replace(plan, stages=(stage,))).succeeded
    assert (plan.output / "told").read_text() == "<--text=a b><$HOME><><--><-v><two\nlines>"


@any_engine
def test_a_flood_of_output_is_bounded(make_contained, engine):
    body = "for _ in range(300):\n    sys.stdout.write('x' * 9999 + '\\n')\nsys.stderr.write('y' * 3_000_000)\n" + WRITE
    plan = make_contained({"one": body})
    assert carry_out(engine, plan).succeeded
    assert (plan.payload / "logs" / "one.out").stat().st_size < 2 * LIMITS.output_bytes


@any_engine
def test_the_same_job_may_run_in_two_workspaces_at_once(make_contained, engine, tmp_path):
    """`clara-wf test` has job ids of its own, the same everywhere."""
    plan = make_contained({"one": "time.sleep(0.5)\n" + WRITE})
    other = tmp_path / "other"
    moved = dataclasses.replace(plan, payload=other)
    for what, host in {"input": "one/input", "output": "one/output", "locks": "locks", "logs": "logs"}.items():
        moved = with_mount(moved, f"/app/{what}", host=other / host)
    with (
        ContainerRunner(engine, limits=LIMITS).run(plan) as first,
        ContainerRunner(engine, limits=LIMITS).run(moved) as second,
    ):
        events = iter(first)
        next(events)
        list(second)
        list(events)
    assert (first.job.status, second.job.status) == (JobStatus.HEALTHY, JobStatus.HEALTHY)


@any_engine
def test_a_mount_at_the_scratch_folder_takes_its_place(make_contained, engine, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o777)
    scratch.chmod(0o777)
    plan = make_contained({"one": "open('/tmp/here', 'w').close()\n" + WRITE})
    stage = plan.stages[0]
    mounted = dataclasses.replace(stage, mounts=(*stage.mounts, Mount(path="/tmp", host=scratch)))
    assert carry_out(engine, dataclasses.replace(plan, stages=(mounted,))).succeeded
    assert Path(scratch / "here").exists()

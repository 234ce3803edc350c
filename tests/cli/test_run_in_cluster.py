"""`run` in a cluster, as far as it can be told without one: what becomes of the input, and what is refused before."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from program import Ended, Program, add_workflow

from clara_wf.cli.runner import _warn_of_other_machines
from clara_wf.model.plan import Plan
from clara_wf.runners.cluster import Cluster

JOB = "12345678-1234-1234-1234-123456789012"
#: In a file's name: it must not be told.
PATIENT = "MARKERNAME"
REFUSES, IS_IN_TROUBLE = 403, 503


def kubeconfig(folder: Path, port: int) -> Path:
    file = folder / "kubeconfig"
    context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
    cluster = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "it",
                "contexts": [context],
                "clusters": [cluster],
                "users": [{"name": "it", "user": {}}],
            }
        )
    )
    return file


@contextlib.contextmanager
def api_server(folder: Path, answer: int) -> Iterator[Path]:
    """Run an API server that knows its namespaces, and answers all else by a code; give its kubeconfig."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            *_, kind, name = self.path.split("/")
            code = 200 if kind == "namespaces" else answer
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            if code != 200:
                body = {"kind": "Status", "code": code, "status": "Failure", "message": "so it is"}
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield kubeconfig(folder, server.server_port)
        finally:
            server.shutdown()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A workspace with a workflow `copy`, and an input of two files in folders."""

    clara: Program
    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "in"

    @property
    def payload(self) -> Path:
        return self.clara.workspace / "payloads" / JOB

    @property
    def staged(self) -> Path:
        return self.payload / "copier/input"

    def run(self, cluster: Path, source: Path | None = None, *more: str) -> Ended:
        given = ("-i", source or self.source, "-o", self.folder / "out")
        return self.clara("run", "copy", *given, "--runner", "kubernetes", "--job", JOB, *more, KUBECONFIG=str(cluster))

    def leave_record(self) -> None:
        """Leave what a runner leaves of a job that it has begun."""
        self.payload.mkdir(parents=True)
        (self.payload / "job.json").write_text(json.dumps({"state": "RUNNING"}))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bench(clara: Program, tmp_path: Path) -> Bench:
    assert clara("cs", "copier", "--code").code == 0
    add_workflow(clara.workspace, "copy", ["copier"])
    made = Bench(clara=clara, folder=tmp_path)
    (made.source / "series").mkdir(parents=True)
    (made.source / "series" / f"{PATIENT}.dcm").write_bytes(b"first")
    (made.source / "note.txt").write_bytes(b"note")
    return made


def test_without_a_cluster_nothing_is_copied(bench: Bench, tmp_path: Path) -> None:
    ended = bench.run(kubeconfig(tmp_path, 1))
    assert (ended.code, ended.err) == (
        3,
        "error: the Kubernetes cluster does not answer. Check KUBECONFIG and that it is up\n",
    )
    assert not bench.payload.exists()


@pytest.mark.parametrize(("answer", "says"), [(REFUSES, "the cluster refuses"), (IS_IN_TROUBLE, "is in trouble")])
def test_of_a_job_that_does_not_start_nothing_stays(bench: Bench, tmp_path: Path, answer: int, says: str) -> None:
    with api_server(tmp_path, answer) as cluster:
        ended = bench.run(cluster)
    assert ended.code == 3, ended.err
    found, error = ended.err.splitlines()[0], ended.err.splitlines()[-1]
    assert found == f"job {JOB} in namespace default: the same command with --job {JOB} finds it again"
    assert says in error
    assert not bench.payload.exists()


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "half a copy"])
def test_an_input_that_is_gone_is_brought_again(bench: Bench, tmp_path: Path, left: str) -> None:
    bench.leave_record()
    if left == "an empty folder":
        bench.staged.mkdir(parents=True)
    elif left == "half a copy":  # of a run that was killed meanwhile
        (bench.staged.parent / ".unfinished-1").mkdir(parents=True)
        (bench.staged.parent / ".unfinished-1" / "note.txt").write_text("no")
    with api_server(tmp_path, IS_IN_TROUBLE) as cluster:
        ended = bench.run(cluster)
    assert ended.code == 3, ended.err
    # There is a record, and the cluster does not say: the job may go on there.
    assert content(bench.staged) == content(bench.source)


def test_an_input_that_was_brought_for_nothing_is_taken_back_alone(bench: Bench, tmp_path: Path) -> None:
    bench.leave_record()
    (bench.payload / "logs").mkdir()
    (bench.payload / "logs/copier.log").write_text("why it failed")
    with api_server(tmp_path, REFUSES) as cluster:
        ended = bench.run(cluster)
    assert ended.code == 3, ended.err
    assert not bench.staged.exists()
    assert (bench.payload / "logs/copier.log").is_file()
    assert (bench.payload / "job.json").is_file()


def test_the_same_input_goes_on(bench: Bench, tmp_path: Path) -> None:
    bench.leave_record()
    with api_server(tmp_path, IS_IN_TROUBLE) as cluster:
        bench.run(cluster)
    before = {path: path.stat().st_ino for path in bench.staged.rglob("*")}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/note.txt").symlink_to(bench.source / "note.txt")
    (tmp_path / "elsewhere/series").symlink_to(bench.source / "series")
    with api_server(tmp_path, REFUSES) as cluster:
        for source in (bench.source, tmp_path / "elsewhere"):
            ended = bench.run(cluster, source)
            assert "the cluster refuses" in ended.err
    assert {path: path.stat().st_ino for path in bench.staged.rglob("*")} == before


@pytest.mark.parametrize("other", ["a file more", "a file less", "other bytes", "another name", "a single file"])
def test_another_input_is_refused(bench: Bench, tmp_path: Path, other: str) -> None:
    bench.leave_record()
    with api_server(tmp_path, IS_IN_TROUBLE) as cluster:
        bench.run(cluster)
    before = content(bench.payload)
    source = bench.source
    image = source / "series" / f"{PATIENT}.dcm"
    match other:
        case "a file more":
            (source / "more.dcm").write_bytes(b"more")
        case "a file less":
            image.unlink()
        case "other bytes":  # another patient's image, of the same name and size
            image.write_bytes(b"other")
        case "another name":
            image.rename(image.with_name("other.dcm"))
        case _:
            source = image
    with api_server(tmp_path, IS_IN_TROUBLE) as cluster:
        ended = bench.run(cluster, source)
    assert ended.code == 2
    *_, error = ended.err.splitlines()
    assert error == f"error: job {JOB} has another input. Give yours another id by --job"
    assert PATIENT not in ended.err
    assert content(bench.payload) == before


def test_an_input_of_links_is_not_for_a_cluster(bench: Bench, tmp_path: Path) -> None:
    bench.staged.parent.mkdir(parents=True)
    bench.staged.symlink_to(bench.source)
    with api_server(tmp_path, IS_IN_TROUBLE) as cluster:
        ended = bench.run(cluster)
    assert ended.code == 2
    assert "has another input" in ended.err
    assert bench.staged.is_symlink()


@pytest.mark.parametrize(
    "options", [("--trtis", "localhost:8000"), ("--set", "trtisUri=http://127.0.0.1:8000"), ("--trtis", "[::1]:8000")]
)
@pytest.mark.parametrize(
    "command",
    [
        ("test", "organ-seg", "--runner", "kubernetes"),
        ("run", "organ-seg", "-i", "charts", "-o", "out", "--runner", "kubernetes"),
        ("export", "manifests", "organ-seg"),
        ("export", "argo", "organ-seg"),
    ],
)
def test_a_server_that_means_the_pod_is_refused(
    clara: Program, tmp_path: Path, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    ended = clara(*command, *options, KUBECONFIG=str(tmp_path / "none"))
    assert (ended.code, ended.out) == (2, "")
    assert " means, in a cluster, the pod itself. Name the server's Service" in ended.err


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        (None, ""),
        (["127.0.0.1", "a-node"], ""),
        (["192.0.2.1", socket.gethostname()], ""),
        (["192.0.2.1", "a-node"], "This machine is no node of the cluster: its nodes must share the folder /p\n"),
        (["127.0.0.1", "192.0.2.1"], "The cluster has other nodes too: they must share the folder /p\n"),
    ],
)
def test_a_folder_that_other_machines_do_not_see(
    addresses: list[str] | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nodes(Cluster):
        def node_addresses(self) -> list[str] | None:
            return addresses

    plan = Plan(workflow="w", workflow_id=JOB, job_id=JOB, job_name="w", payload=Path("/p") / JOB, stages=())
    _warn_of_other_machines(Nodes(None, "default"), plan)
    assert capsys.readouterr().err == says


def test_keep_of_a_test_is_for_a_cluster(clara: Program) -> None:
    ended = clara("test", "ai-only", "--keep")
    assert (ended.code, ended.err) == (
        2,
        "error: --keep is for a release in a cluster. Add --runner kubernetes, or leave it out\n",
    )


@pytest.mark.parametrize("command", [("test", "ai-only"), ("run", "ai-only", "-i", "charts", "-o", "out")])
def test_a_namespace_is_for_a_cluster(clara: Program, command: tuple[str, ...]) -> None:
    ended = clara(*command, "--namespace", "x")
    assert ended.code == 2
    assert "--namespace is for a cluster" in ended.err

"""Folders go to a bucket and come back, whole; what cannot is told without the name of a file."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile
from s3_server import SECRET, Bucket

from clara_wf.bucket import Moved, fetch, remove, send, store, wait_for
from clara_wf.model.errors import ClaraError, InputError, LackError, UsageError
from clara_wf.model.files import UNFINISHED

# In a file's name: it must not be told.
PATIENT = "MARKERNAME"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names that a store may stumble over, an empty file, and one that goes in parts."""
    made = tmp_path / "folder"
    for name, content in {
        f"{PATIENT} a/b/1.dcm": b"one",
        "b%20c/ä #?&+'[1]*.dcm": b"two",
        "empty": b"",
        "large.raw": os.urandom(store.PART_BYTES * 2 + 12345),
        ".hidden": b"three",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    return made


def test_there_and_back(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    there: list[float] = []
    wanted = tree(folder)
    moved = send(folder, f"{bucket.url}/p/job/", bucket.endpoint, progress=there.append)
    assert moved == Moved(files=5, size=sum(map(len, wanted.values())))
    assert bucket.objects == {f"p/job/{name}": content for name, content in wanted.items()}
    assert there == sorted(there)
    assert there[-1] == 1.0

    back = tmp_path / "back"
    assert fetch(f"{bucket.url}/p/job", back, bucket.endpoint) == moved
    assert tree(back) == wanted


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_other_kinds_of_store(kind: str, folder: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store/job" if kind == "file" else f"memory://{tmp_path.name}/job"
    send(folder, url)
    fetch(url, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    wait_for(f"{url}/empty")
    remove(url)
    remove(url)
    with pytest.raises(InputError, match="there is nothing"):
        fetch(url, tmp_path / "again")


def test_a_job_sees_nothing_of_another_whose_id_begins_alike(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    bucket.put("job-10/other", b"other")
    bucket.put("job-1/mine", b"mine")
    fetch(f"{bucket.url}/job-1", tmp_path / "back", bucket.endpoint)
    assert tree(tmp_path / "back") == {"mine": b"mine"}
    remove(f"{bucket.url}/job-1", bucket.endpoint)
    assert list(bucket.objects) == ["job-10/other"]


def test_folders_can_be_left_out(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("in/a", "locks/x.lock", "locks2/y", "ai/output/z", "ai/input/w"):
        bucket.put(f"job/{name}")
    fetch(f"{bucket.url}/job", tmp_path, bucket.endpoint, skip=["locks", "ai/output"])
    assert sorted(tree(tmp_path)) == ["ai/input/w", "in/a", "locks2/y"]
    with pytest.raises(InputError, match="there is nothing"):
        fetch(f"{bucket.url}/job/locks", tmp_path / "none", bucket.endpoint, skip=["x.lock"])


def test_marks_of_folders_and_unfinished_objects_are_no_files(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a/", "a/b", f"a/{UNFINISHED}c"):
        bucket.put(f"job/{name}", b"" if name.endswith("/") else b"x")
    fetch(f"{bucket.url}/job", tmp_path, bucket.endpoint)
    assert sorted(tree(tmp_path)) == ["a/b"]


def test_links_are_followed_and_loops_end(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.dcm").write_bytes(b"one")
    job = tmp_path / "job"
    job.mkdir()
    (job / "input").symlink_to(tmp_path / "elsewhere")
    (job / "file").symlink_to(tmp_path / "elsewhere/1.dcm")
    (tmp_path / "elsewhere/up").symlink_to(job)
    (job / f"{UNFINISHED}x").write_bytes(b"half")
    send(job, f"{bucket.url}/job", bucket.endpoint)
    assert bucket.objects == {"job/file": b"one", "job/input/1.dcm": b"one"}


@pytest.mark.parametrize("what", ["link", "pipe", "bytes"])
def test_what_cannot_be_sent(what: str, bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / PATIENT
    if what == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        Path(os.fsdecode(os.fsencode(path) + b"\xff")).touch()
    with pytest.raises(InputError, match="the folder to send holds") as caught:
        send(tmp_path, f"{bucket.url}/job", bucket.endpoint)
    assert PATIENT not in str(caught.value)
    assert bucket.objects == {}


@pytest.mark.parametrize("name", [f"../{PATIENT}", f"a/../../{PATIENT}", f"a//{PATIENT}", "./x"])
def test_names_that_lead_out_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    # A server refuses some of these itself; other kinds of store do not.
    url = f"memory://{tmp_path.name}/job"
    stored = fsspec.filesystem("memory").store
    stored[f"/{tmp_path.name}/job/{name}"] = stored[f"/{tmp_path.name}/job/first"] = MemoryFile()
    with pytest.raises(InputError, match="leads out of the folder") as caught:
        fetch(url, tmp_path / "back")
    assert PATIENT not in str(caught.value)
    assert list(tmp_path.rglob("*")) == [tmp_path / "back"]


def test_a_key_that_leads_out_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("job/a/../../../x")
    with pytest.raises(InputError, match="leads out of the folder"):
        fetch(f"{bucket.url}/job", tmp_path / "back", bucket.endpoint)


def test_a_link_that_lies_there_is_not_followed_out(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("job/input/1.dcm")
    (tmp_path / "outside").mkdir()
    (tmp_path / "back").mkdir()
    (tmp_path / "back/input").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="follows a link out"):
        fetch(f"{bucket.url}/job", tmp_path / "back", bucket.endpoint)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_and_a_folder_of_one_name(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("job/a")
    bucket.put("job/a/b")
    with pytest.raises(InputError, match="is named as the folder of another"):
        fetch(f"{bucket.url}/job", tmp_path, bucket.endpoint)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("url", "endpoint", "said"),
    [
        ("payloads/job", "", "is not of the form s3://bucket/prefix"),
        ("s3://", "", "is not of the form s3://bucket/prefix"),
        ("s3://id:hidden@bucket/job", "", "keys do not belong into a URL"),
        ("s3://bucket/job", "http://id:hidden@host:9000", "keys do not belong into a URL"),
        ("file:///tmp/job", "http://host:9000", "an endpoint is for s3://"),
        ("s3://bucket/job", "host:9000", "is not of the form http://host:port"),
        ("quux://bucket/job", "", "which is no kind of store"),
    ],
)
def test_wrong_urls(url: str, endpoint: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        fetch(url, tmp_path, endpoint)
    assert "hidden" not in str(caught.value)


def test_a_bucket_that_is_not_there(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s3://nowhere/job: there is no such bucket"):
        send(folder, "s3://nowhere/job", bucket.endpoint)
    with pytest.raises(InputError, match="s3://nowhere/job: there is nothing"):
        fetch("s3://nowhere/job", tmp_path / "back", bucket.endpoint)


def test_no_keys(bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # ~/.aws
    with pytest.raises(LackError, match="there are no keys for the store"):
        send(folder, f"{bucket.url}/job", bucket.endpoint)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAUSES", (0.01, 0.01))


@pytest.mark.usefixtures("quick")
def test_a_server_that_does_not_answer(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LackError, match="the store does not answer") as caught:
        send(folder, "s3://payloads/job", endpoint)
    assert PATIENT not in str(caught.value)


class _Refusing(BaseHTTPRequestHandler):
    """Answers `answers` in turn, the last one for ever."""

    answers: tuple[tuple[int, str], ...] = ()
    asked: list[str] = []  # noqa: RUF012 - set anew by each test

    def do_GET(self) -> None:
        code, text = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(self.path)
        body = f"<Error><Code>{text}</Code><Message>{self.path}</Message></Error>".encode() if code != 200 else b""
        body = body or b"<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_HEAD = do_GET  # noqa: N815 - as the base class calls them

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server; give its endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def refusing() -> Iterator[tuple[type[_Refusing], str]]:
    """A server that answers as a test wants."""

    class Handler(_Refusing):
        asked: list[str] = []  # noqa: RUF012

    with serving(Handler) as endpoint:
        yield Handler, endpoint


class _Short(BaseHTTPRequestHandler):
    """Lists one object of 1000 bytes, and has 11."""

    announced = 0

    def do_GET(self) -> None:
        listed = "<Key>job/a</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1000</Size>"
        listing = f"<ListBucketResult><KeyCount>1</KeyCount><Contents>{listed}</Contents></ListBucketResult>".encode()
        body = listing if "list-type" in self.path else b"new content"
        self.send_response(200)
        self.send_header("Content-Length", str(max(len(body), self.announced)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass


class _Broken(_Short):
    """Announces more than it sends, then closes: a connection that breaks."""

    announced = 1000


@pytest.mark.usefixtures("quick")
def test_a_connection_that_breaks_within_an_object(tmp_path: Path) -> None:
    with serving(_Broken) as endpoint, pytest.raises(LackError, match="the store does not answer"):
        fetch("s3://payloads/job", tmp_path, endpoint)
    assert tree(tmp_path) == {}


def test_what_stands_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    """An object that ends early replaces nothing and leaves nothing."""
    (tmp_path / "a").write_bytes(b"old")
    with serving(_Short) as endpoint, pytest.raises(InputError, match="changed while it was fetched"):
        fetch("s3://payloads/job", tmp_path, endpoint)
    assert tree(tmp_path) == {"a": b"old"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("code", "text", "kind", "said"),
    [
        (403, "AccessDenied", LackError, "refuses these keys"),
        (403, "InvalidAccessKeyId", LackError, "refuses these keys"),
        (403, "SignatureDoesNotMatch", LackError, "refuses these keys"),
        (500, "InternalError", LackError, "does not answer"),
        (503, "SlowDown", LackError, "does not answer"),
        (503, "ServiceUnavailable", LackError, "does not answer"),
        (400, "InvalidRequest", InputError, "refuses the request"),
    ],
)
def test_what_a_server_refuses(
    code: int, text: str, kind: type[ClaraError], said: str, refusing: tuple[type[_Refusing], str], tmp_path: Path
) -> None:
    handler, endpoint = refusing
    handler.answers = ((code, text),)
    with pytest.raises(kind, match=said) as caught:
        fetch(f"s3://payloads/{PATIENT.lower()}", tmp_path / "back", endpoint)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_busy_for_a_while(refusing: tuple[type[_Refusing], str], tmp_path: Path) -> None:
    handler, endpoint = refusing
    handler.answers = (*[(503, "ServiceUnavailable")] * 2, (200, ""))
    with pytest.raises(InputError, match="there is nothing"):
        fetch("s3://payloads/job", tmp_path / "back", endpoint)
    assert len(handler.asked) > 2


def test_a_full_disk_is_told_as_such(bucket: Bucket, tmp_path: Path) -> None:
    """It is no fault of the store, and no reason to try again."""
    bucket.put("job/a")
    (tmp_path / "back").mkdir()
    (tmp_path / "back/a").mkdir()  # in the way of the file
    with pytest.raises(OSError, match="directory"):
        fetch(f"{bucket.url}/job", tmp_path / "back", bucket.endpoint)

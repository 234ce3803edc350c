"""HTTP with whatever listens there: it has an end, and what came of it has a name."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from triton_server import free_port

from clara_wf.kserve.address import Address
from clara_wf.kserve.http_wire import HttpWire
from clara_wf.kserve.wire import ForeignServer, ServerFault, ServerGone, ServerSilent

OK = b"HTTP/1.1 200 OK\r\n"
#: What a server may send: what it is, what is sent, what it is taken for.
ANSWERS = [
    ("nothing", b"", ServerGone),
    ("half of a head", OK + b"Content-Le", ServerGone),
    ("half of a body", OK + b'Content-Length: 100\r\n\r\n{"version"', ServerGone),
    ("half of a chunk", OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{", ServerGone),
    ("not ready", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", ServerGone),
    ("a proxy's error", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", ServerGone),
    ("a banner", b"SSH-2.0-OpenSSH_9.2\r\n", ForeignServer),
    ("an alert of TLS", bytes.fromhex("15030100020250"), ForeignServer),
    ("a page", OK + b"\r\n<html>", ForeignServer),
    ("a list", OK + b"Content-Length: 2\r\n\r\n[]", ForeignServer),
    ("another program's JSON", OK + b"Content-Length: 2\r\n\r\n{}", ForeignServer),
    ("no such page", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n\xff\xfe", ForeignServer),
    ("elsewhere", b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", ForeignServer),
    ("a length that is none", OK + b"Content-Length: -1\r\n\r\n{}", ForeignServer),
]


@contextlib.contextmanager
def listening(answer):
    """Run a server of one port, which answers by calling `answer` with the connection; gives its wire."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield HttpWire(Address.parse(f"127.0.0.1:{server.getsockname()[1]}"))
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize(("answer", "kind"), [each[1:] for each in ANSWERS], ids=[each[0] for each in ANSWERS])
def test_what_listens_has_a_name(answer, kind):
    began = time.monotonic()
    with listening(lambda connection: connection.sendall(answer)) as wire, pytest.raises(kind, match=r"127\.0\.0\.1"):
        wire.version(60)
    assert time.monotonic() - began < 30  # not its patience


def test_an_answer_without_end():
    def drip(connection):
        connection.sendall(OK + b"\r\n")
        for _ in range(2000):
            connection.sendall(b" ")
            time.sleep(0.05)

    began = time.monotonic()
    with listening(drip) as wire:
        with pytest.raises(ServerSilent, match="did not answer within 1 s"):
            wire.version(1)
        assert time.monotonic() - began < 50  # not until the last drop


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, b'{"error": "no such thing"}', ServerFault, "answers: no such thing"),
        (500, b"<html>a long page", ServerFault, "answers: HTTP status 500"),
        (400, b"{}", ServerFault, "answers: HTTP status 400"),
        (503, b'{"error": "stopping"}', ServerGone, "is stopping or not ready: stopping"),
    ],
)
def test_an_answer_that_is_none(status, body, kind, said):
    answer = b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    with listening(lambda connection: connection.sendall(answer)) as wire, pytest.raises(kind, match=said):
        wire.index()


def test_nobody_listens():
    with pytest.raises(ServerGone, match="Connection refused"):
        HttpWire(Address.parse(f"127.0.0.1:{free_port()}")).version()


def test_a_name_that_nobody_has():
    with pytest.raises(ServerGone, match="its name is not known"):
        HttpWire(Address.parse("no-such-host.invalid:8000")).version()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system does not tell its connections")
def test_a_machine_that_vanishes_is_noticed():
    """The system asks it for a sign of life: the connection has that timer."""
    timers = set()

    def look(connection):
        # The client's own line: it may have spoken with another from the same port.
        ends = [connection.getpeername()[1], connection.getsockname()[1]]
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        own = [fields for fields in lines if [int(end.split(":")[1], 16) for end in fields[1:3]] == ends]
        timers.add(tuple(fields[5].split(":")[0] for fields in own))

    with listening(look) as wire, pytest.raises(ServerGone):
        wire.version(5)
    assert timers == {("02",)}


def test_who_speaks_with_no_server_does_not_pay(root):
    """The libraries are imported with the first question, and nothing of Python's own is patched for them."""
    code = (
        "import sys, socket\n"
        "import clara_wf.kserve.network, clara_wf.operators.segmentation_stage\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "assert not names & {'tritonclient', 'gevent', 'geventhttpclient', 'grpc', 'aiohttp'}, names\n"
        "before = socket.socket\n"
        "import clara_wf.kserve.http_wire\n"
        "assert 'grpc' not in sys.modules\n"
        "import clara_wf.kserve.grpc_wire, gevent.monkey\n"
        "assert socket.socket is before and not gevent.monkey.saved\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


@pytest.mark.parametrize(
    "body", [b'{"name": "triton", "version": "2.51.0"}', b"[1]", b'[{"name": 1}, null]', b"7", b"null"]
)
def test_json_of_another_form(body):
    answer = OK + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    with listening(lambda connection: connection.sendall(answer)) as wire:
        for ask in (lambda: wire.model("tiny", "1"), wire.regions, *([wire.index] if body != b"null" else [])):
            with pytest.raises(ForeignServer, match="does not answer as an inference server does"):
                ask()


def test_an_answer_that_is_too_long():
    sent = []

    def pour(connection):
        connection.sendall(OK + b"\r\n")
        while True:
            connection.sendall(b"x: y\r\n" * 2**16)
            sent.append(6 * 2**16)

    with listening(pour) as wire, pytest.raises(ForeignServer):
        wire.version(60)
    assert sum(sent) < 2**27

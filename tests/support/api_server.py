"""A stand-in for Kubernetes' API server, for what a real one does only in another version, or in trouble.

It lists what a test says there is, and notes what it is asked to delete.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lightkube import Client, KubeConfig
from lightkube.config.models import Cluster, User

Answer = tuple[int, str | None, str]  # HTTP status, content type, body
JSON = "application/json"


class ApiServer:
    """What there is, by the plural name of its kind; a test may change it at any time."""

    def __init__(self, url: str) -> None:
        self.client = Client(config=KubeConfig.from_one(cluster=Cluster(server=url), user=User()))
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.deleted: list[str] = []  # names
        self.before_jobs: Callable[[], None] = lambda: None  # called whenever the Jobs are listed
        self.log: Answer = (200, "text/plain", "")
        self.trouble: list[Answer] = []  # given in place of the next lists of Jobs

    def answer(self, method: str, path: str) -> Answer:
        last = path.partition("?")[0].rpartition("/")[2]
        if method == "DELETE":
            self.deleted.append(last)
            for found in self.objects.values():
                found[:] = [each for each in found if each["metadata"]["name"] != last]
            return 200, JSON, json.dumps({"kind": "Status", "status": "Success"})
        if last == "log":
            return self.log
        if last == "jobs":
            self.before_jobs()
            if self.trouble:
                return self.trouble.pop(0)
        return 200, JSON, json.dumps({"kind": "List", "metadata": {}, "items": self.objects.get(last, [])})


def status(code: int, message: str) -> Answer:
    """Return what a real server answers to what it does not do."""
    return code, JSON, json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message})


@contextlib.contextmanager
def api_server() -> Iterator[ApiServer]:
    """Run one for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, kind, body = server.answer(self.command, self.path)
            self.send_response(code)
            if kind is not None:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_DELETE = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = ApiServer(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.client.close()
            http.shutdown()
            thread.join()

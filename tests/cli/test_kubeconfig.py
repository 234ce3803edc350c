"""What a broken kubeconfig, a cluster that is another, and a Secret that cannot be written are told as."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import pwd
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from program import Ended, Program

from clara_wf.chart.workspace import Workspace
from clara_wf.cli import workspace
from clara_wf.cli.build import cache_folder
from clara_wf.cli.kubeconfig import kubeconfig_files, read_kubeconfig
from clara_wf.model.errors import LackError

KEY = "not-to-be-told-0123456789"


def config(server: str = "http://127.0.0.1:1", **parts: Any) -> dict[str, Any]:
    """Return a kubeconfig; `parts` are of its cluster and its user."""
    user = parts.pop("user", {})
    return {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": server, **parts}}],
        "users": [{"name": "it", "user": user}],
    }


def written(folder: Path, content: object, name: str = "kubeconfig") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def asked(clara: Program, named: Path | str) -> Ended:
    return clara("setkey", KUBECONFIG=str(named), NGC_API_KEY=KEY)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that nobody else has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "it.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "it.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "it.crt", folder / "it.key"


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Start an API server that answers reading and writing by a code each; give its port."""
    servers = []

    def start(*, read: int = 200, write: int = 200, context: ssl.SSLContext | None = None, text: str = "") -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(read)

            def do_PATCH(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(write)

            def _answer(self, code: int) -> None:
                about = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
                # As a cluster may repeat what it was sent.
                refusal = {"kind": "Status", "code": code, "status": "Failure", "message": f"no {KEY}"}
                data = text.encode() or json.dumps(about if code == 200 else refusal).encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/html" if text else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def line(ended: Ended, code: int = 3) -> str:
    assert (ended.code, ended.out) == (code, ""), ended.err
    (only,) = ended.err.splitlines()
    assert KEY not in only
    return only


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1\ntoken: secret-of-the-user", "is no YAML, line 2"),
        ("", "is empty"),
        ("- a\n- b\n", "is no kubeconfig"),
        ("clusters: 5\ncontexts: {a: b}\n", "it is no kubeconfig"),
        ({**config(), "clusters": [{"name": "it", "cluster": {"server": 5}}]}, "it is no kubeconfig"),
        ({**config(), "current-context": ""}, "its current context, or"),
        ({**config(), "current-context": "other"}, "its current context, or"),
        ({**config(), "clusters": []}, "its current context, or"),
        (config(**{"certificate-authority-data": "A"}), "the certificate of the cluster in it is no base64"),
        (config(**{"certificate-authority-data": base64.b64encode(b"none").decode()}), "or a key of it is none"),
        (config(**{"certificate-authority": "ca.crt"}), "the certificate of the cluster that it names is not there: /"),
        (config(user={"client-certificate": "me.crt"}), "the certificate of the user that it names is not there: /"),
        (config(user={"client-certificate-data": "QQ=="}), "a certificate without a key"),
        (config(user={"tokenFile": "token"}), "the token of the user that it names is not there: /"),
        (config("nonsense"), "the address of its cluster is none"),
    ],
)
def test_a_broken_kubeconfig_is_told_in_one_line(clara: Program, tmp_path: Path, content: object, says: str) -> None:
    said = line(asked(clara, written(tmp_path, content)))
    assert said.startswith("error: KUBECONFIG cannot be read: ")
    assert says in said
    assert "secret-of-the-user" not in said


def test_without_any_file_no_cluster_is_configured(clara: Program, tmp_path: Path) -> None:
    said = line(asked(clara, f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}"))
    assert said == "error: no Kubernetes cluster is configured. Name its kubeconfig by KUBECONFIG"


def test_a_home_folder_that_is_not_known_is_told(clara: Program) -> None:
    said = line(asked(clara, "~nobodyx/config"))
    assert said.startswith("error: KUBECONFIG cannot be read: ~nobodyx/config: that home folder is not known. ")
    found = clara("doctor", "--json", KUBECONFIG="~nobodyx/config")
    (about,) = [finding for finding in json.loads(found.out) if finding["name"] == "cluster"]
    assert (about["ok"], about["detail"]) == (False, said.removeprefix("error: ").partition(". ")[0])


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user whom the system does not know, as in a container that is started as any user."""

    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "KUBECONFIG", "XDG_CACHE_HOME", "XDG_DATA_HOME", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_folder_has_no_kubeconfig() -> None:
    assert kubeconfig_files() == []
    with pytest.raises(LackError, match="no Kubernetes cluster is configured"):
        read_kubeconfig()


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_folder_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LackError, match=r"this user has no home folder\. Name one by HOME"):
        cache_folder()
    monkeypatch.setattr(workspace, "find_workspace", lambda **_: Workspace(root=tmp_path, editable=False))
    with pytest.raises(LackError, match=r"this user has no home folder\. Name one by HOME"):
        workspace.places()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert workspace.places().data == tmp_path / "clara-wf"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "for signing in cannot be started: no-such-program"),
        ("echo the secret >&2; exit 1", "for signing in does not do so"),
        ("echo nonsense", "its program for signing in gives no token"),
    ],
)
def test_a_program_for_signing_in_that_does_not_work(
    clara: Program, tmp_path: Path, serve: Callable[..., int], script: str | None, says: str
) -> None:
    program = "no-such-program"
    if script is not None:
        file = written(tmp_path, f"#!/bin/sh\n{script}\n", "sign-in")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        program = f"./{file.name}"  # beside the kubeconfig
    run = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": program}
    said = line(asked(clara, written(tmp_path, config(f"http://127.0.0.1:{serve()}", user={"exec": run}))))
    assert says in said
    assert "the secret" not in said


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"read": 401}, "the cluster does not accept the credentials in KUBECONFIG: they may have expired"),
        ({"read": 502, "text": "<html>"}, "says 502, and not as a cluster does"),
        ({"text": "<html>"}, "what answers at the address in KUBECONFIG is no cluster"),
        ({"write": 401}, "they may have expired"),
        ({"write": 403}, "the cluster does not let you write Secret 'nvcr.io' in namespace default. Ask"),
        ({"write": 422}, "of another type. Remove it: kubectl --namespace default delete secret nvcr.io"),
        ({"write": 500}, "it answers 500"),
    ],
)
def test_what_a_cluster_refuses_is_told_without_the_key(
    clara: Program, tmp_path: Path, serve: Callable[..., int], answers: dict[str, Any], says: str
) -> None:
    said = line(asked(clara, written(tmp_path, config(f"http://127.0.0.1:{serve(**answers)}"))))
    assert says in said


def test_of_a_list_of_files_the_first_that_says_it_counts(
    clara: Program, tmp_path: Path, serve: Callable[..., int]
) -> None:
    good = config(f"http://127.0.0.1:{serve()}")
    users = written(tmp_path, {"users": good.pop("users"), "clusters": [], "contexts": None}, "users.yaml")
    rest = written(tmp_path, good, "rest.yaml")
    other = written(tmp_path, config(), "other.yaml")
    named = os.pathsep.join(map(str, (tmp_path / "missing.yaml", users, rest, other)))
    ended = asked(clara, named)
    assert (ended.code, ended.out) == (0, "The key is stored as Secret 'nvcr.io' in namespace default\n"), ended.err
    found = clara("doctor", "--json", KUBECONFIG=named)
    (about,) = [finding for finding in json.loads(found.out) if finding["name"] == "cluster"]
    assert about["detail"] == f"configured by {users}, {rest}, {other}"


def test_a_cluster_with_another_certificate_is_not_one_that_is_down(
    clara: Program, tmp_path: Path, serve: Callable[..., int]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path / "server"))
    trusted, _ = certificate(tmp_path / "other")
    server = f"https://127.0.0.1:{serve(context=context)}"
    said = line(asked(clara, written(tmp_path, config(server, **{"certificate-authority": str(trusted)}))))
    assert said.startswith("error: the cluster's certificate is not the one that KUBECONFIG trusts: ")
    plain = f"https://127.0.0.1:{serve()}"
    assert "cannot be spoken to by TLS" in line(asked(clara, written(tmp_path, config(plain))))


@pytest.mark.parametrize("name", ["", "Default", "a_b", "-a", "a-", "a.b", "a" * 64, "../x"])
@pytest.mark.parametrize("command", [("setkey",), ("export", "manifests", "recon-only")])
def test_a_namespace_has_a_dns_label_for_a_name(clara: Program, command: tuple[str, ...], name: str) -> None:
    said = line(clara(*command, f"--namespace={name}"), code=2)
    assert said.startswith(f"error: --namespace {name!r} cannot be a namespace's name. ")

"""The secret for pulling images: made, replaced, and never seen."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

import pytest
from cluster_bench import NAMESPACE
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Secret
from program import Program

KEY = "key-that-nobody-sees"


@pytest.fixture
def kubeconfig(client: Client) -> Iterator[str]:
    yield os.environ["KUBECONFIG"]
    try:
        client.delete(Secret, "nvcr.io", namespace=NAMESPACE)
    except ApiError as fault:
        if fault.status.code != 404:
            raise


def password(client: Client) -> str:
    secret = client.get(Secret, "nvcr.io", namespace=NAMESPACE)
    assert secret.type == "kubernetes.io/dockerconfigjson"
    config = json.loads(base64.b64decode(secret.data[".dockerconfigjson"]))
    entry = config["auths"]["nvcr.io"]
    assert base64.b64decode(entry["auth"]).decode() == f"{entry['username']}:{entry['password']}"
    return entry["password"]


@pytest.mark.parametrize("command", ["setkey", "set_ngc_api_key"])
def test_the_key_is_stored_and_replaced(clara: Program, client: Client, kubeconfig: str, command: str) -> None:
    for key in (KEY, f"{KEY}-too"):
        ended = clara(command, "--namespace", NAMESPACE, KUBECONFIG=kubeconfig, NGC_API_KEY=key)
        assert ended.code == 0, ended.err
        assert KEY not in ended.out + ended.err
        assert password(client) == key


def test_a_key_on_the_command_line_is_refused(clara: Program, kubeconfig: str) -> None:
    ended = clara("setkey", KEY, "--namespace", NAMESPACE, KUBECONFIG=kubeconfig)
    assert ended.code == 2


@pytest.mark.parametrize("key", [" ", "two words"])
def test_a_key_that_cannot_be_one_is_refused(clara: Program, kubeconfig: str, key: str) -> None:
    ended = clara("setkey", "--namespace", NAMESPACE, KUBECONFIG=kubeconfig, NGC_API_KEY=key)
    assert (ended.code, ended.err) == (2, "error: the NGC API key is empty or has blanks in it. Copy it again\n")


def test_a_namespace_that_is_not_there(clara: Program, kubeconfig: str) -> None:
    ended = clara("setkey", "--namespace", "clara-wf-none", KUBECONFIG=kubeconfig, NGC_API_KEY=KEY)
    assert ended.code == 3
    assert "clara-wf-none" in ended.err
    assert KEY not in ended.err

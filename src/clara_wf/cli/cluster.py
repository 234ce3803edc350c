"""A Kubernetes cluster: reaching it, and the secret for pulling images."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import typer

from clara_wf.cli.options import DEFAULT_NAMESPACE, NamespaceOption
from clara_wf.model.errors import LackError, UsageError

if TYPE_CHECKING:
    from lightkube import Client

SECRET = "nvcr.io"  # noqa: S105 - the secret's name, as the guide has it
#: The registry's fixed user name; the key is the password.
_USER = "$oauthtoken"


def set_ngc_api_key(*, namespace: NamespaceOption = None) -> None:
    """Store the key for pulling images, from NGC_API_KEY or asked for without echo."""
    namespace = namespace or DEFAULT_NAMESPACE
    client = reach(namespace)
    key = os.environ.get("NGC_API_KEY") or typer.prompt("NGC API key", hide_input=True)
    if not key.strip() or any(character.isspace() for character in key.strip()):
        raise UsageError("the NGC API key is empty or has blanks in it", remedy="Copy it again")
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Secret

    token = base64.b64encode(f"{_USER}:{key.strip()}".encode()).decode()
    config = {"auths": {SECRET: {"username": _USER, "password": key.strip(), "auth": token}}}
    secret = Secret(
        metadata=ObjectMeta(name=SECRET, namespace=namespace),
        type="kubernetes.io/dockerconfigjson",
        stringData={".dockerconfigjson": json.dumps(config)},
    )
    client.apply(secret, field_manager="clara-wf", force=True)
    print(f"The key is stored as Secret '{SECRET}' in namespace {namespace}")


def reach(namespace: str) -> Client:
    """Return a client of the cluster that KUBECONFIG names.

    Raises
    ------
    LackError
        None is configured, or it does not answer.
    """
    import httpx2 as httpx
    from lightkube import Client, KubeConfig
    from lightkube.core.exceptions import ApiError, ConfigError
    from lightkube.resources.core_v1 import Namespace

    try:
        client = Client(config=KubeConfig.from_env(), field_manager="clara-wf")
        client.get(Namespace, namespace)
    except ConfigError as exc:
        raise LackError("no Kubernetes cluster is configured", remedy="Name its kubeconfig by KUBECONFIG") from exc
    except ApiError as exc:
        raise LackError(
            f"the cluster refuses: {exc.status.message}", remedy="Check --namespace and KUBECONFIG"
        ) from exc
    except httpx.HTTPError as exc:
        raise LackError("the Kubernetes cluster does not answer", remedy="Check KUBECONFIG and that it is up") from exc
    return client

"""A Kubernetes cluster: reaching it, and the secret for pulling images."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from clara_wf.cli.kubeconfig import read_kubeconfig, unreadable
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
    with answered(), _stored(namespace):
        client.apply(secret, field_manager="clara-wf", force=True)
    print(f"The key is stored as Secret '{SECRET}' in namespace {namespace}")


@contextlib.contextmanager
def _stored(namespace: str) -> Iterator[None]:
    """Say why a Secret cannot be stored, never in the cluster's own words: they may repeat what was sent."""
    import httpx2 as httpx
    from lightkube.core.exceptions import ApiError

    try:
        yield
    except ApiError as exc:
        where = f"Secret '{SECRET}' in namespace {namespace}"
        match exc.status.code:
            case httpx.codes.UNAUTHORIZED:
                raise
            case httpx.codes.FORBIDDEN:
                message = f"the cluster does not let you write {where}"
                remedy = "Ask its administrator for the rights to create and patch secrets there"
            case httpx.codes.UNPROCESSABLE_ENTITY:
                message = f"there is a {where} already, of another type"
                remedy = f"Remove it: kubectl --namespace {namespace} delete secret {SECRET}"
            case code:
                message, remedy = f"the cluster does not take {where}: it answers {code}", "Try again"
        raise LackError(message, remedy=remedy) from None


def reach(namespace: str) -> Client:
    """Return a client of the cluster that KUBECONFIG names.

    Raises
    ------
    LackError
        None is configured, its configuration is broken, or it does not answer.
    """
    import httpx2 as httpx
    from lightkube import Client
    from lightkube.core.exceptions import ConfigError
    from lightkube.resources.core_v1 import Namespace

    config = read_kubeconfig()
    try:
        client = Client(config=config, field_manager="clara-wf")
    except (OSError, ValueError) as exc:  # ssl.SSLError among them
        raise unreadable("a certificate or a key of it is none, or they do not belong together") from exc
    except (ConfigError, httpx.InvalidURL) as exc:
        raise unreadable("the address of its cluster, or its way of signing in, is none that is known here") from exc
    with answered():
        client.get(Namespace, namespace)
    return client


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Translate what goes wrong when the cluster is asked something.

    Raises
    ------
    LackError
        It refuses, it does not answer, it is another than the one that KUBECONFIG trusts, or none at all.
    """
    import httpx2 as httpx
    from lightkube.core.exceptions import ApiError, ConfigError

    try:
        yield
    except ApiError as exc:
        if exc.status.code == httpx.codes.UNAUTHORIZED:
            raise LackError(
                "the cluster does not accept the credentials in KUBECONFIG: they may have expired",
                remedy="Sign in again, or get a new kubeconfig",
            ) from exc
        raise LackError(
            f"the cluster refuses: {exc.status.message}", remedy="Check --namespace and KUBECONFIG"
        ) from exc
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise unreadable("the address of its cluster is none") from exc
    except httpx.HTTPStatusError as exc:
        raise LackError(
            f"what answers at the address in KUBECONFIG says {exc.response.status_code}, and not as a cluster does",
            remedy="Check KUBECONFIG, and the proxy's settings",
        ) from exc
    except httpx.HTTPError as exc:
        raise _unreachable(exc) from exc
    except ConfigError as exc:  # its text holds what the program said
        raise LackError(
            "the program that KUBECONFIG names for signing in does not do so", remedy="Sign in by it, then try again"
        ) from exc
    except OSError as exc:
        raise LackError(
            f"the program that KUBECONFIG names for signing in cannot be started: {exc.filename}",
            remedy="Install it, or put it on the PATH",
        ) from exc
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise LackError(
            "what answers at the address in KUBECONFIG is no cluster, or its program for signing in gives no token",
            remedy="Check KUBECONFIG",
        ) from exc


def _unreachable(fault: BaseException) -> LackError:
    """Tell a cluster that cannot be trusted from one that is not there."""
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return LackError(
                f"the cluster's certificate is not the one that KUBECONFIG trusts: {cause.verify_message}",
                remedy="Get its kubeconfig anew",
            )
        if isinstance(cause, ssl.SSLError):
            return LackError(
                f"the cluster cannot be spoken to by TLS: {cause.reason}", remedy="Check the address in KUBECONFIG"
            )
        cause = cause.__cause__ or cause.__context__
    return LackError("the Kubernetes cluster does not answer", remedy="Check KUBECONFIG and that it is up")

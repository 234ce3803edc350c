"""KUBECONFIG: its files found, put together as kubectl does, and checked before anything is asked of a cluster."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara_wf.cli.workspace import home_folder
from clara_wf.model.errors import LackError

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

VARIABLE = "KUBECONFIG"
_NONE = "no Kubernetes cluster is configured"
#: What names files: relative ones lie beside the kubeconfig.
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}


def kubeconfig_files() -> list[Path]:
    """Return the files that KUBECONFIG, or its absence, means: those that are there, as kubectl has it.

    Raises
    ------
    LackError
        The home folder that one of them lies in is not known.
    """
    named = [_expanded(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
    return [path for path in named or _usual() if path.exists()]


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:
        raise unreadable(f"{text}: that home folder is not known") from exc


def _usual() -> list[Path]:
    """Return where the file lies if nobody says so; a user without a home folder, as in many a pod, has none."""
    try:
        return [home_folder() / ".kube" / "config"]
    except LackError:
        return []


def read_kubeconfig() -> SingleConfig:
    """Return what is known of the current cluster and its user.

    Raises
    ------
    LackError
        Nothing is configured, or it cannot be read; the message holds nothing of a file's content.
    """
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    files = kubeconfig_files()
    try:
        config = KubeConfig.from_dict(_merged(files)) if files else _of_pod()
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise unreadable("it is no kubeconfig") from exc
    try:
        chosen = config.get()
    except (ConfigError, KeyError) as exc:
        why = "its current context, or the cluster or the user of that, is not in it"
        raise unreadable(why, remedy="Choose one by `kubectl config use-context`") from exc
    if chosen is None:
        raise LackError(_NONE, remedy=f"Name its kubeconfig by {VARIABLE}")
    return _checked(chosen)


def unreadable(why: str, *, remedy: str | None = None) -> LackError:
    """Return the error that says what is wrong with a kubeconfig."""
    return LackError(f"{VARIABLE} cannot be read: {why}", remedy=remedy or f"Mend it, or name another by {VARIABLE}")


def _of_pod() -> Any:  # noqa: ANN401 - a KubeConfig
    """Return what a pod knows of its own cluster."""
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        return KubeConfig.from_service_account()
    except (ConfigError, KeyError, OSError) as exc:
        raise LackError(_NONE, remedy=f"Name its kubeconfig by {VARIABLE}") from exc


def _merged(files: list[Path]) -> dict[str, Any]:
    """Put files together: of two entries of one name, and of two current contexts, the first counts."""
    found: dict[str, Any] = {"current-context": None}
    lists: dict[str, dict[str, Any]] = {key: {} for key in _LISTS}
    for file in files:
        content = _content(file)
        found["current-context"] = found["current-context"] or content.get("current-context") or None
        for key, inner in _LISTS.items():
            for entry in content.get(key) or ():
                settled = {**entry, inner: dict(_settled(entry.get(inner) or {}, file.absolute().parent))}
                lists[key].setdefault(entry["name"], settled)
    return found | {key: list(entries.values()) for key, entries in lists.items()}


def _content(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise unreadable(f"{file}: {exc.strerror or type(exc).__name__}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        raise unreadable(f"{file} is no YAML{f', line {mark.line + 1}' if mark else ''}") from exc
    if not content:
        raise unreadable(f"{file} is empty")
    if not isinstance(content, dict):
        raise unreadable(f"{file} is no kubeconfig")
    return content


def _settled(entry: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Any]]:
    """Make the paths of an entry absolute, and those of its program for signing in that are paths at all."""
    for key, value in entry.items():
        if key in _FILES and isinstance(value, str) and value:
            yield key, str(folder / value)
        elif key == "exec" and isinstance(value, dict) and "/" in str(value.get("command")):
            yield key, {**value, "command": str(folder / str(value["command"]))}
        else:
            yield key, value


def _checked(config: SingleConfig) -> SingleConfig:
    """See to it that each file which is named is there, and that what is meant as base64 is that."""
    from lightkube.config.models import User

    user, cluster = config.user or User(), config.cluster
    for what, path in (
        ("certificate of the cluster", cluster.certificate_auth),
        ("certificate of the user", user.client_cert),
        ("key of the user", user.client_key),
        ("token of the user", user.token_file),
    ):
        if path and not os.access(path, os.R_OK):
            state = "may not be read" if Path(path).exists() else "is not there"
            raise unreadable(f"the {what} that it names {state}: {path}")
    for what, data in (
        ("certificate of the cluster", cluster.certificate_auth_data),
        ("certificate of the user", user.client_cert_data),
        ("key of the user", user.client_key_data),
    ):
        try:
            base64.b64decode(data or "")
        except ValueError as exc:
            raise unreadable(f"the {what} in it is no base64") from exc
    if bool(user.client_cert or user.client_cert_data) != bool(user.client_key or user.client_key_data):
        raise unreadable("its user has a certificate without a key, or a key without a certificate")
    return config._replace(user=user)

"""The configuration of a MONAI bundle, read as data: references are followed, expressions are never evaluated.

MONAI's parser evaluates every text that begins with ``$`` as Python. A bundle comes from a stranger, so here such a
text stays a text: what needs its value is refused by name, what does not is not disturbed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clara_wf.importers.translation import shown
from clara_wf.inference.reader import quoted
from clara_wf.model.errors import InputError

_SEPARATOR = re.compile(r"::|#")
#: An expression that is nothing but a reference: ``$@spacing``.
_MERE_REFERENCE = re.compile(r"\$\s*(@[\w:#]+)\s*")
#: Of a configuration; real ones have some kilobytes.
_MOST_BYTES = 8 << 20
#: Values that one file may resolve to: YAML's aliases and references can multiply without end.
_MOST_VALUES = 200_000
_MOST_DEPTH = 50


@dataclass(frozen=True, kw_only=True)
class Unresolved:
    """A value that is not known without running the bundle's code, or not at all."""

    text: str  # as it stands there
    why: str  # is an expression, which is never evaluated

    def __str__(self) -> str:
        return f"{quoted(self.text)} {self.why}"


class BundleConfig:
    """A configuration and the metadata beside it, which it may refer to as ``_meta_``."""

    def __init__(self, content: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self._content = {"_meta_": metadata, **content}
        self._values = 0

    def top(self, name: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
        """Return an entry at the top, one level of it resolved; None if there is none."""
        return self.shallow(self._content.get(name))

    def shallow(self, value: Any, seen: tuple[str, ...] = ()) -> Any:  # noqa: ANN401
        """Follow a value's own references, and leave what it holds as it is."""
        while isinstance(value, str):
            mere = _MERE_REFERENCE.fullmatch(value)
            text = mere[1] if mere else value
            if not text.startswith(("$", "@", "%")) or len(text) == 1:
                return value
            found, target = self._find(text[1:])
            why = _why_not(text) or ("" if found else "refers to nothing")
            if text in seen:
                why = _circle(seen, text)
            elif len(seen) > _MOST_DEPTH:
                why = "refers to something by too many steps"
            if why:
                return Unresolved(text=value, why=why)
            value, seen = target, (*seen, text)
        return value

    def deep(self, value: Any, seen: tuple[str, ...] = (), depth: int = 0) -> Any:  # noqa: ANN401
        """Resolve a value and all that it holds; what cannot be is `Unresolved` as a whole."""
        self._values += 1
        if self._values > _MOST_VALUES or depth > _MOST_DEPTH:
            raise InputError("the bundle's configuration is nested, or refers to itself, beyond reading")
        if isinstance(value, str):
            if value in seen:
                return Unresolved(text=value, why=_circle(seen, value))
            seen = (*seen, value)
            value = self.shallow(value)
        if isinstance(value, list):
            entries = [self.deep(entry, seen, depth + 1) for entry in value]
            return next((entry for entry in entries if isinstance(entry, Unresolved)), entries)
        if isinstance(value, Mapping):
            fields = {str(key): self.deep(entry, seen, depth + 1) for key, entry in value.items()}
            return next((entry for entry in fields.values() if isinstance(entry, Unresolved)), fields)
        return value

    def _find(self, identifier: str) -> tuple[bool, Any]:
        """Look a reference up: ``preprocessing#transforms#0``, or with ``::`` between."""
        target: Any = self._content
        for part in _SEPARATOR.split(identifier):
            if isinstance(target, Mapping) and part in target:
                target = target[part]
            elif isinstance(target, list) and part.isdigit() and int(part) < len(target):
                target = target[int(part)]
            else:
                return False, None
        return True, target


def _circle(seen: tuple[str, ...], text: str) -> str:
    return f"refers to itself ({shown(' to '.join((*seen, text)))})"


def _why_not(text: str) -> str:
    """Say why a text that begins with one of MONAI's signs is not followed; empty: it is a reference."""
    if text.startswith("$"):
        return "is an expression, which is never evaluated"
    if text.startswith("%") and re.search(r"\.(json|ya?ml)\b", text, re.IGNORECASE):
        return "refers to another file"
    return "is a relative reference, which is not followed" if text[1] in "#:" else ""


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a file of a package, JSON or YAML, that holds a mapping.

    Raises
    ------
    InputError
        It does not, or it is far larger than any such file.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path.name} has more than {_MOST_BYTES >> 20} MB: that is no configuration")
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        # Its own text quotes the lines around.
        line = "" if exc.problem_mark is None else f" in line {exc.problem_mark.line + 1}"
        raise InputError(f"{path.name} cannot be read: {shown(exc.problem or 'it is no YAML')}{line}") from exc
    except (ValueError, yaml.YAMLError, RecursionError) as exc:
        raise InputError(f"{path.name} cannot be read: {shown(str(exc))}") from exc
    except OSError as exc:
        raise InputError(f"{path.name} cannot be read: {exc.strerror}") from exc
    if not isinstance(content, Mapping):
        raise InputError(f"{path.name} holds no mapping")
    return content

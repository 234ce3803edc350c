"""Kubernetes objects as YAML text that every parser reads alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Quotes what another parser may take for a number or a truth: "1e3", "012", "y"."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML itself quotes what it would read as something else, such as "true" and "null".
    plain = len(text) > 1 and ((text[0].isascii() and text[0].isalpha()) or text[0] == "/")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def to_yaml(objects: Sequence[Mapping[str, Any]], *, heading: Sequence[str] = ()) -> str:
    """Write objects as YAML documents.

    Parameters
    ----------
    objects : sequence of mapping
        The objects, in the order in which they are to be applied.
    heading : sequence of str, optional
        Lines of a comment at the top.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in heading)
    documents = [
        yaml.dump(dict(body), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120) for body in objects
    ]
    return comment + "---\n" + "---\n".join(documents)

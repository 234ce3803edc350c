"""YAML as Kubernetes reads it, with the line of every mistake."""

from __future__ import annotations

from typing import Any

import yaml

# libyaml is ten times as fast; PyYAML's wheels have it, a build from source may not.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlFault(ValueError):
    """A text is no YAML. `line` counts from 1; `cause` is one line."""

    def __init__(self, line: int, cause: str) -> None:
        super().__init__(f"line {line}: {cause}")
        self.line = line
        self.cause = cause


class _Loader(_Base):  # type: ignore[misc]
    """Refuses keys that stand twice, as Kubernetes does, and leaves dates the strings that they are there."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:  # noqa: ANN401 - PyYAML's class is untyped
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise YamlFault(key_node.start_mark.line + 1, f"'{key}' stands twice")
        seen.add(key)
    mapping: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Base.construct_yaml_str)


def documents(text: str) -> list[Any]:
    """Parse all documents of a text; empty ones are left out.

    Raises
    ------
    YamlFault
        The text is no YAML, or a key stands twice.
    """
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise YamlFault(mark.line + 1 if mark else 1, exc.problem or "no YAML") from exc
    except yaml.YAMLError as exc:
        raise YamlFault(1, " ".join(str(exc).split())) from exc

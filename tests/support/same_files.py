"""Whether two runs of a workflow left the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: What differs from run to run by its nature: moments, durations, memory.
_OF_THE_RUN = {"created", "started", "ended", "seconds", "peak_memory_mib"}
#: Of the runner, not of the stages.
_NOT_COMPARED = {"locks", "logs", "job.json", ".lock", ".app"}
#: When the test data were made.
_STAMP = "input.stamp.json"


def differences(one: Path, other: Path) -> list[str]:
    """Return in which files two payloads differ; JSON but for times and memory, all else byte by byte."""
    files, others = _files(one), _files(other)
    found = [f"{name}: only in one" for name in sorted(files ^ others)]
    for name in sorted(files & others):
        here, there = (one / name).read_bytes(), (other / name).read_bytes()
        if name.endswith(".json") and _lasting(json.loads(here)) == _lasting(json.loads(there)):
            continue
        if here != there:
            found.append(name)
    return found


def _files(root: Path) -> set[str]:
    names = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(name) for name in names if name.parts[0] not in _NOT_COMPARED and name.name != _STAMP}


def _lasting(content: Any) -> Any:
    if isinstance(content, dict):
        return {
            key: _lasting(value) for key, value in content.items() if key not in _OF_THE_RUN and not key.endswith("_s")
        }
    return [_lasting(entry) for entry in content] if isinstance(content, list) else content

"""docs/cli.md is what `--help` says: made by this test when asked to, compared with it otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from program import Program

COMMANDS = (
    (),
    ("run",),
    ("test",),
    ("workflows",),
    ("show",),
    ("ls",),
    ("cs",),
    ("ds",),
    ("model",),
    ("model", "install"),
    ("model", "list"),
    ("model", "show"),
    ("model", "add"),
    ("model", "test"),
    ("model", "configure"),
    ("build",),
    ("export",),
    ("export", "manifests"),
    ("export", "argo"),
    ("init",),
    ("phantom",),
    ("doctor",),
    ("install_trtis",),
    ("uninstall_trtis",),
    ("trtis",),
    ("trtis", "status"),
    ("trtis", "log"),
    ("setkey",),
)


def test_the_reference_is_what_help_says(clara: Program, root: Path) -> None:
    parts = ["# Commands\n\nMade from `--help`; renew it by `CLARA_WF_RENEW_GOLDEN=1 ./run-tests tests/cli`.\n"]
    for command in COMMANDS:
        ended = clara(*command, "--help", COLUMNS="100", NO_COLOR="1")
        assert ended.code == 0, ended.err
        text = "\n".join(line.rstrip() for line in ended.out.splitlines()).strip()
        parts.append(f"## clara-wf {' '.join(command)}".rstrip() + f"\n\n```text\n{text}\n```\n")
    reference = "\n".join(parts)
    file = root / "docs/cli.md"
    if os.environ.get("CLARA_WF_RENEW_GOLDEN"):
        file.write_text(reference)
    assert file.read_text() == reference

"""A workspace whose stages run in containers without images of ours: this checkout's code, mounted into a Python."""

from __future__ import annotations

import re
import sysconfig
import textwrap
from pathlib import Path

from base_image import REPOSITORY, TAG

ROOT = Path(__file__).parents[2]


def mount_checkout(workspace: Path, *more: Path) -> None:
    """Change the workspace's chart: every stage is a bare Python that sees the checkout's code and packages.

    Parameters
    ----------
    workspace : Path
        Holds `charts/`.
    more : Path
        Further folders that go first on the module path.
    """
    folders = [*more, ROOT / "src", Path(sysconfig.get_path("purelib"))]
    helpers = workspace / "charts/clara-workflow/templates/_helpers.tpl"
    text = helpers.read_text()
    mounts = "".join(f"- name: code-{n}\n  mountPath: /code/{n}\n  readOnly: true\n" for n in range(len(folders)))
    path = ":".join(f"/code/{n}" for n in range(len(folders)))
    variables = f'- name: PYTHONPATH\n  value: "{path}"\n- name: PYTHONDONTWRITEBYTECODE\n  value: "1"\n'
    text = _after(text, '{{- define "clara-workflow.payloadMounts" -}}\n', mounts)
    text = _after(text, '{{- define "clara-workflow.contract" -}}\n', variables)
    volumes = " ".join(
        f'(dict "name" "code-{n}" "hostPath" (dict "path" "{folder}"))' for n, folder in enumerate(folders)
    )
    made = '{{- $volumes := list (set $payload "name" "payload") -}}\n'
    assert made in text
    text = text.replace(made, made + "{{- $volumes = concat $volumes (list " + volumes + ") -}}\n")
    helpers.write_text(text)
    _mount_into_transfers(workspace, mounts, variables)
    values = workspace / "charts/clara-workflow/values.yaml"
    text = re.sub(
        r'repository: "clara-wf/[\w-]+"\n(\s+)tag: "[\d.]+"',
        rf'repository: "{REPOSITORY}"\n\1tag: "{TAG}"',
        values.read_text(),
    )
    values.write_text(text)


def _mount_into_transfers(workspace: Path, mounts: str, variables: str) -> None:
    """Do the same for the containers that carry a payload to a bucket and back."""
    file = workspace / "charts/clara-workflow/templates/_transfer.tpl"
    text = file.read_text()
    for key, addition in (("env", variables), ("volumeMounts", mounts)):
        mark = f"\n{key}:\n"
        assert text.count(mark) == 1, key
        text = text.replace(mark, mark + textwrap.indent(addition, "  "))
    file.write_text(text)


def _after(text: str, mark: str, addition: str) -> str:
    assert text.count(mark) == 1, mark
    # The action that follows eats white space, but no line break that an action prints.
    return text.replace(mark, mark + addition.rstrip() + '{{ "\\n" }}', 1)

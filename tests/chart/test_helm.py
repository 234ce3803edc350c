"""Both backends render the same, and what Helm complains about becomes one line with file and cause."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clara_wf.chart.helm import Helm, ProgramHelm, SdkHelm, find_helm
from clara_wf.chart.render import plan_job
from clara_wf.chart.request import JobRequest
from clara_wf.chart.workspace import Workspace
from clara_wf.model.errors import ChartError, HelmMissing

Make = Callable[..., JobRequest]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `helm` to start, with Helm's own engine behind it."""
    file = tmp_path_factory.mktemp("bin") / "helm"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("helm_program.py")}" "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture(scope="session", params=["sdk", "stand-in"])
def any_helm(request: pytest.FixtureRequest, program: Path) -> Helm:
    return SdkHelm() if request.param == "sdk" else ProgramHelm(str(program))


def test_both_backends_give_the_same_plan(chart: Path, helm: Helm, program: Path, either_helm: Helm, job: Make) -> None:
    request = job("ct-ai", job_name="a, b=c", options={"ai-vnet": ["007"]})
    wanted = plan_job(chart, request, helm=helm)
    assert plan_job(chart, request, helm=ProgramHelm(str(program))) == wanted
    assert plan_job(chart, request, helm=either_helm) == wanted


def spoil(workspace: Workspace, old: str, new: str, name: str = "templates/stages/ai-vnet/container.yaml") -> str:
    """Change a file of the chart; return its path, as an error should name it."""
    file = workspace.chart / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return str(file)


def refusal(workspace: Workspace, helm: Helm, request: JobRequest) -> str:
    with pytest.raises(ChartError) as caught:
        plan_job(workspace.chart, request, helm=helm)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_value_is_named(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "name: ai-vnet\n", "name: {{ $values.nothing.here }}\n")
    said = refusal(workspace, any_helm, job("ai-only"))
    assert said.startswith(f"{file}:9: nil pointer evaluating")
    assert "<$values.nothing.here>" in said


def test_an_unknown_function_is_named(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "| quote", "| quot")
    assert refusal(workspace, any_helm, job("ai-only")) == f'{file}:10: function "quot" not defined'


def test_a_brace_that_is_not_closed_is_named(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "{{- with $values.command }}", "{{- with $values.command }")
    assert refusal(workspace, any_helm, job("ai-only")).startswith(f"{file}:12: ")


def test_an_end_too_few_is_named(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "{{- end }}", "")
    said = refusal(workspace, any_helm, job("ai-only"))
    assert said.startswith(file)
    assert "unexpected EOF" in said


def test_broken_yaml_is_traced_to_the_stage(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "  # Your own", "  - name: X\n     value: y\n  # Your own")
    said = refusal(workspace, any_helm, job("recon-ai"))
    assert said.startswith(f"{file}: renders to broken YAML: ")
    assert "value: y" in said


def test_a_key_twice_is_refused_as_kubernetes_would(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "  # Your own", "env: []\n  # Your own")
    assert f"{file}: renders to broken YAML: 'env' stands twice" in refusal(workspace, any_helm, job("ai-only"))


def test_a_lost_file_is_named(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = workspace.chart / "templates/stages/ai-vnet/container.yaml"
    file.unlink()
    said = refusal(workspace, any_helm, job("ai-only"))
    assert said.startswith(f'{file}: nothing there defines "ai-vnet.container"')


def test_broken_values_are_named(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    file = spoil(workspace, "  storage:", "   storage:", "values.yaml")
    said = refusal(workspace, any_helm, job("ai-only"))
    assert said.startswith(file)


def test_wrong_values_are_all_told_at_once(workspace: Workspace, any_helm: Helm, job: Make) -> None:
    said = refusal(workspace, any_helm, job("ai-only", extra={"runSimple": "yes", "more": 1}))
    assert "runSimple: " in said
    assert "'more' not allowed" in said


def test_a_folder_that_is_no_chart(tmp_path: Path, any_helm: Helm) -> None:
    with pytest.raises(ChartError, match=r"Chart\.yaml"):
        any_helm.render(tmp_path, "x", {})


def test_lint_tells_what_is_wrong(workspace: Workspace, any_helm: Helm) -> None:
    assert any_helm.lint(workspace.chart, {}) == []
    spoil(workspace, "kind: Job", "kind: Job\n  x: [", "templates/deployment.yaml")
    found = any_helm.lint(workspace.chart, {})
    assert len(found) >= 1
    assert "deployment.yaml" in " ".join(found)


def test_the_backend_can_be_chosen(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(find_helm(), SdkHelm)
    assert isinstance(find_helm(str(program)), ProgramHelm)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CLARA_WF_HELM", "program")
    chosen = find_helm()
    assert isinstance(chosen, ProgramHelm)
    assert str(program) in chosen.name
    monkeypatch.setenv("CLARA_WF_HELM", "/nowhere/helm")
    with pytest.raises(HelmMissing, match="'/nowhere/helm' is not on the PATH"):
        find_helm()


def test_starting_programs_stays_safe_after_loading_the_sdk() -> None:
    """The SDK's threads and signal handlers must not reach children, nor take Ctrl-C or a broken pipe from Python."""
    code = """
import os, signal, subprocess
from clara_wf.chart.helm import SdkHelm
SdkHelm()
for _ in range(20):
    subprocess.run(["true"], check=True, start_new_session=True)
said = subprocess.run(["cat"], input=b"x" * 100_000, capture_output=True, check=True).stdout
assert len(said) == 100_000
reader, writer = os.pipe()
os.close(reader)
try:
    os.write(writer, b"x")
except BrokenPipeError:
    pass
else:
    raise AssertionError
got = []
signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
os.kill(os.getpid(), signal.SIGTERM)
assert got == [signal.SIGTERM]
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

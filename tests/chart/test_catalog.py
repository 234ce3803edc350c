"""Lists and look-ups."""

from __future__ import annotations

from pathlib import Path

import pytest

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.workspace import Workspace
from clara_wf.model.errors import ChartError, UsageError


@pytest.mark.parametrize(
    "text", ["liver-seg", "ai", "AI", "fd3ee8bf-b9f3-4808-bd60-243f870ff9bd", "FD3EE8BF-B9F3-4808-BD60-243F870FF9BD"]
)
def test_a_workflow_answers_to_all_its_names(text: str, chart: Path) -> None:
    workflow = read_catalog(chart).workflow(text)
    assert workflow.name == "liver-seg"
    assert workflow.stages == ("dicom-reader", "ai-livertumor", "dicom-writer")
    assert len(workflow.folders) == len(workflow.stages) + 1


@pytest.mark.parametrize(("text", "near"), [("liver-sge", "liver-seg"), ("ai_only", "ai-only"), ("organ", "organ-seg")])
def test_an_unknown_workflow_gets_the_nearest_suggested(text: str, near: str, chart: Path) -> None:
    with pytest.raises(UsageError, match=f"no workflow '{text}'. Did you mean '{near}'") as caught:
        read_catalog(chart).workflow(text)
    assert caught.value.exit_code == 2


def test_nothing_is_suggested_where_nothing_is_near(chart: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_catalog(chart).workflow("zzz")
    assert "Did you mean" not in str(caught.value)


def test_stages_say_who_uses_them(chart: Path) -> None:
    stages = {stage.name: stage for stage in read_catalog(chart).stages}
    assert list(stages) == ["dicom-reader", "recon", "ai-vnet", "ai-livertumor", "dicom-writer"]
    assert stages["recon"].workflows == ("ct-ai", "ct-partial", "recon-only", "recon-ai")
    assert stages["ai-livertumor"].workflows == ("liver-seg",)
    assert stages["ai-livertumor"].image == "clara-wf/ai-livertumor:0.1.0"
    with pytest.raises(UsageError, match="Did you mean 'dicom-reader'"):
        read_catalog(chart).stage("dicom-raeder")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", r"values.yaml:\d: "),
        ("- 1\n", "is no YAML mapping"),
        ("workflows: {x: {}}\n", "are not as values.schema.json"),
        ("a: 1\na: 2\n", "values.yaml:2: 'a' stands twice"),
    ],
)
def test_broken_values_are_named(text: str, said: str, workspace: Workspace) -> None:
    (workspace.chart / "values.yaml").write_text(text)
    with pytest.raises(ChartError, match=said):
        read_catalog(workspace.chart)


def test_a_chart_without_values(tmp_path: Path) -> None:
    with pytest.raises(ChartError, match=r"values\.yaml cannot be read"):
        read_catalog(tmp_path)

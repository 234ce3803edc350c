from __future__ import annotations

import copy
import re
from datetime import date
from importlib import resources
from pathlib import Path

import pytest

from clara_wf.inference.description import DescriptionError, load, parse


@pytest.mark.parametrize("name", ["liver", "liver-lesion"])
def test_our_own_descriptions_are_right(name):
    path = Path(str(resources.files("clara_wf.inference") / "catalogue" / f"{name}.yaml"))
    description = load(path)
    assert description.name == name
    assert "clinical" in description.limits


def test_all_faults_in_one_message(tiny):
    wrong = copy.deepcopy(tiny)
    wrong["orientation"] = "RLS"
    wrong["spacing_mm"] = [2, 2]
    wrong["colour"] = "red"
    wrong["window"]["tiling"] = "perhaps"
    wrong["labels"][0]["value"] = 300
    del wrong["licence"]
    with pytest.raises(DescriptionError) as caught:
        parse(wrong, where="own/model.yaml")
    for fault in ("RLS", "spacing_mm", "colour is unknown", "window.tiling", "300", "licence"):
        assert fault in str(caught.value)
    assert str(caught.value).startswith("own/model.yaml: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other/1"}, "schema"),
        ({"spacing_mm": [0, 1, 1]}, "not positive"),
        ({"median_at_mm": [1, 1, 0]}, "median_at_mm"),
        ({"window": {"size": [10, 10, 10], "margin": [5, 5, 5]}}, "leaves nothing"),
        ({"window": {"size": [10.5, 10, 10]}}, "whole numbers"),
        ({"window": {"size": [10, 10, 10], "overlap": 1}}, "overlap"),
        ({"labels": []}, "no list of labels"),
        ({"precision": "f64"}, "precision"),
        ({"threshold": float("nan")}, "no number"),
        ({"intensity": {"clip": [1, 0]}}, "intensity.clip"),
        ({"intensity": {"clip": [0, 1], "scale": 0}}, "intensity.scale"),
        ({"field_of_view": {"torso_mm": 45}}, "field_of_view.body_cm2 is missing"),
        ({"version": 1}, 'version is 1: write it in quotes, "1"'),
        ({"version": date(2024, 5, 1)}, 'version is 2024-05-01: write it in quotes, "2024-05-01"'),
        ({"limits": False}, "limits is false, no text: write it in quotes"),
        ({"citation": None}, "citation is missing"),
        ({"title": " "}, "title is empty"),
        ({"title": ["a"]}, r"title is no text: \['a'\]"),
        ({"within": {"model": "tiny"}}, "within.model is tiny, the model itself"),
    ],
)
def test_a_fault_is_named(tiny, change, message):
    with pytest.raises(DescriptionError, match=message):
        parse({**tiny, **change}, where="x")


@pytest.mark.parametrize("field", ["schema", "citation", "orientation", "spacing_mm", "window", "labels"])
def test_a_field_that_is_missing_is_said_to_be_missing_and_nothing_else_of_it(tiny, field):
    without = {name: value for name, value in tiny.items() if name != field}
    with pytest.raises(DescriptionError, match=f"x: {field} is missing") as caught:
        parse(without, where="x")
    assert len(re.findall(rf"\b{field} ", str(caught.value))) == 1


def test_two_labels_may_not_share_a_value(tiny):
    with pytest.raises(DescriptionError, match="twice"):
        parse({**tiny, "labels": tiny["labels"] * 2}, where="x")


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "", "\x00\x01"])
def test_a_file_that_is_no_description(tmp_path, content):
    path = tmp_path / "model.yaml"
    path.write_text(content)
    with pytest.raises(DescriptionError):
        load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DescriptionError, match=r"there is no model\.yaml"):
        load(tmp_path / "model.yaml")

"""The variables of the contract: all faults at once, and what each value means."""

from __future__ import annotations

from pathlib import Path

import pytest

from clara_wf.model.errors import UsageError
from clara_wf.stage import Contract

GOOD = {
    "NVIDIA_CLARA_STAGENAME": "ai-vnet",
    "NVIDIA_CLARA_JOBID": "00000000-0000-0000-0000-000000000000",
    "NVIDIA_CLARA_INPUTS": "input/recon.mhd",
    "NVIDIA_CLARA_OUTPUTS": "output",
    "NVIDIA_CLARA_LOCKDIR": "/app/locks",
    "NVIDIA_CLARA_LOCKNAME": "ai-vnet.lock",
}


def read(**changes: str) -> Contract:
    return Contract.read(GOOD | {f"NVIDIA_CLARA_{name}": value for name, value in changes.items()})


def test_paths_lie_below_the_app_folder():
    contract = read(APPDIR="/srv/x", LOCKDIR="locks", LOGNAME="logs/a.log")
    assert contract.inputs == Path("/srv/x/input/recon.mhd")
    assert contract.outputs == Path("/srv/x/output")
    assert contract.lock == Path("/srv/x/locks/ai-vnet.lock")
    assert contract.log == Path("/srv/x/logs/a.log")


def test_absolute_paths_stand():
    assert read(APPDIR="/srv/x").lock == Path("/app/locks/ai-vnet.lock")


def test_every_fault_is_named_at_once():
    with pytest.raises(UsageError) as caught:
        Contract.read({"NVIDIA_CLARA_TIMEOUT": "soon", "NVIDIA_CLARA_APPDIR": "app"})
    for name in ("STAGENAME", "JOBID", "INPUTS", "OUTPUTS", "LOCKDIR", "LOCKNAME"):
        assert f"NVIDIA_CLARA_{name} is not set" in str(caught.value)
    assert "NVIDIA_CLARA_TIMEOUT=soon is no number of seconds" in str(caught.value)
    assert "NVIDIA_CLARA_APPDIR=app is not absolute" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["STAGENAME", "JOBID", "INPUTS", "OUTPUTS", "LOCKDIR", "LOCKNAME"])
def test_an_empty_variable_is_a_missing_one(name):
    with pytest.raises(UsageError, match=f"NVIDIA_CLARA_{name} is not set"):
        read(**{name: ""})


@pytest.mark.parametrize(("text", "seconds"), [("0", None), ("", None), ("600", 600.0), ("0.5", 0.5)])
def test_no_time_out_is_zero(text, seconds):
    assert read(TIMEOUT=text).timeout == seconds


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1 h"])
def test_a_time_out_is_a_number_of_seconds(text):
    with pytest.raises(UsageError, match="TIMEOUT"):
        read(TIMEOUT=text)


@pytest.mark.parametrize(
    ("changes", "waits_for_input"),
    [
        ({}, True),
        ({"RUNSIMPLE": "FALSE"}, True),
        ({"RUNSIMPLE": "TRUE"}, False),
        ({"RUNSIMPLE": "true"}, False),
        ({"WAITNAME": "dicom-reader.lock"}, False),
    ],
)
def test_only_the_first_stage_waits_for_the_input(changes, waits_for_input):
    contract = read(INPUTLOCK="/app/locks/input.lock", **changes)
    assert contract.input_lock == (Path("/app/locks/input.lock") if waits_for_input else None)
    assert contract.wait == (Path("/app/locks/dicom-reader.lock") if "WAITNAME" in changes else None)

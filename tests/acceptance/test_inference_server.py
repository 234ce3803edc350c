"""A workflow on a real Triton, as the README has it: the labels are those of the embedded engine, bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from program import Program
from triton_server import free_port

from clara_wf.imaging.record import read_record

SERIES_JOB = "11111111-1111-1111-1111-111111111111"


def labels_of(program: Program) -> tuple[str, str]:
    """Return the hash of the labels that the last test made, and what is recorded of the engine."""
    (labels,) = (program.workspace / "test-data" / SERIES_JOB / "ai-vnet/output").glob("*.seg.mhd")
    record = read_record(labels)
    assert record is not None
    assert record.algorithm is not None
    return hashlib.sha256(labels.with_suffix(".raw").read_bytes()).hexdigest(), record.algorithm.engine


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.xdist_group("trtis")
def test_organ_seg_on_the_server_is_organ_seg(clara_with_trtis: Program, models: Path) -> None:
    clara = clara_with_trtis
    (clara.workspace / "models").symlink_to(models)
    embedded = clara("test", "organ-seg", "--json")
    assert embedded.code == 0, embedded.err
    labels, engine = labels_of(clara)
    assert engine.startswith("OpenVINO ")
    port = str(free_port())
    installed = clara("install_trtis", "--port", port)
    assert installed.code == 0, installed.err
    for address in (f"localhost:{port}", f"grpc://localhost:{int(port) + 1}"):
        served = clara("test", "organ-seg", "--trtis", address, "--json")
        assert served.code == 0, served.err
        assert served.events[-1]["result"]["comparison"]["liver"]["dice"] >= 0.94
        assert labels_of(clara) == (labels, f"{engine} in Triton 2.51.0")
    status = clara("trtis", "status")
    assert "liver" in status.out
    assert clara("uninstall_trtis").code == 0
    # Nobody is left to ask, and that is said in the end.
    gone = clara("test", "organ-seg", "--trtis", f"localhost:{port}", "--arg", "ai-vnet=--trtis-wait=2")
    assert gone.code == 3
    assert "does not answer" in gone.err

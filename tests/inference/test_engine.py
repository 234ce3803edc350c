from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tiny_network import save_network

from clara_wf.inference.engine import EngineError, OpenVinoNetwork, describe


@pytest.fixture
def saved(tmp_path):
    def save(shape):
        path = tmp_path / "model" / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        save_network(path, operation="Neg", shape=shape)
        return path

    return save


def test_any_window_before_and_after_release(saved):
    network = OpenVinoNetwork(saved([1, 1, "x", "y", "z"]), precision="f32")
    assert network.identity.endswith(" f32")
    for shape in ((4, 5, 6), (7, 3, 2)):
        window = np.random.default_rng(0).standard_normal((1, 1, *shape)).astype(np.float32)
        assert np.array_equal(network.infer(window), -window)
        network.release()
        assert np.array_equal(network.infer(window[:, :, ::-1]), -window[:, :, ::-1])


def test_several_windows_at_once(saved):
    network = OpenVinoNetwork(saved(["n", 1, "x", "y", "z"]), precision="f32")
    windows = np.random.default_rng(0).standard_normal((3, 1, 4, 5, 6)).astype(np.float32)
    network.prepare((4, 5, 6), batch=3)
    assert np.array_equal(network.infer(windows), -windows)
    assert np.array_equal(network.infer(windows[:2]), -windows[:2])


def test_what_is_no_network(tmp_path, saved):
    with pytest.raises(EngineError, match="does not have one input"):
        OpenVinoNetwork(saved([1, 1, "x", "y"]))
    path = tmp_path / "broken" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nonsense")
    with pytest.raises(EngineError, match=r"broken: model\.onnx is no model"):
        OpenVinoNetwork(path)


def test_a_network_of_one_size(saved):
    network = OpenVinoNetwork(saved([1, 1, 4, 4, 4]))
    assert network.infer(np.ones((1, 1, 4, 4, 4), np.float32)).shape == (1, 1, 4, 4, 4)
    assert describe("f32").startswith("OpenVINO ")


TWO_NETWORKS = """
import os, pathlib, signal, sys
from clara_wf.inference.engine import OpenVinoNetwork, describe
signal.signal(signal.SIGTERM, lambda number, frame: print("asked to end"))
first, second = (OpenVinoNetwork(pathlib.Path(sys.argv[1]), precision="f32") for _ in range(2))
first.prepare((4, 5, 6))
second.prepare((4, 5, 6))
describe()
del first
del second
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_heeded_after_networks_that_are_gone(saved):
    """OpenVINO lends a thread its stack for signal handlers, which the first one to go must not take along."""
    path = saved([1, 1, "x", "y", "z"])
    done = subprocess.run([sys.executable, "-c", TWO_NETWORKS, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "asked to end\n"), done.stderr

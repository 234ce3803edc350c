"""What the server makes of a model that we install: the same numbers, and faults that are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from served_code import wait_until
from tiny_network import described, install_instead, save_network
from triton_server import LOCK, free_port, infer, running

from clara_wf.inference.engine import OpenVinoNetwork
from clara_wf.inference.install import install
from clara_wf.inference.repository import find_model
from clara_wf.inference.serving import configure, ensure_served, read_serving
from clara_wf.inference.triton_config import Backend, Serving
from clara_wf.model.errors import InputError, UsageError
from clara_wf.model.files import sha256_of
from clara_wf.trtis.environment import prepare
from clara_wf.trtis.rest import ask_json
from clara_wf.trtis.server import start, stop
from clara_wf.trtis.state import Server
from clara_wf.trtis.status import load_model, model_rows, model_states

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("trtis")]


def convolution(path: Path, first: int | str) -> None:
    """Save a network of two layers with weights by chance, for two labels."""
    chance = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(chance.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (4, 1, 3, 3, 3)), ("w2", (2, 4, 3, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["hidden"], pads=[1] * 6),
        helper.make_node("Tanh", ["hidden"], ["bent"]),
        helper.make_node("Conv", ["bent", "w2"], ["score"], pads=[1] * 6),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [first, 1, "x", "y", "z"])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [first, 2, "x", "y", "z"])
    graph = helper.make_graph(nodes, "net", [image], [score], initializer=weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def add(root: Path, name: str, first: int | str = 1, *, only: bool = False) -> None:
    """Install a network: for one window at a time, or (with a name for the first dimension) for several."""
    source = root.parent / f"source-{name}"
    source.mkdir()
    if only:
        save_network(source / "network.onnx", operation="Neg", shape=(1, 1, 16, 16, 16))
    else:
        convolution(source / "network.onnx", first)
    (source / "model.yaml").write_text(yaml.safe_dump(described(name=name, background=not only)))
    install(name, root, source=source)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    add(root, "one")
    add(root, "several", "n")
    configure(find_model(root, "several"), Serving(max_batch=4, precision="f32"))
    add(root, "two-instances")
    configure(find_model(root, "two-instances"), Serving(instances=2))
    add(root, "of-one-size", only=True)
    add(root, "damaged")
    file = root / "damaged/1/model.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    add(root, "on-gpu", "n")
    gpu = Serving(backend="onnxruntime", max_batch=4, queue_delay_us=100, precision="f16", instances=2)
    configure(find_model(root, "on-gpu"), gpu)
    add(root, "on-gpu-fixed")
    configure(find_model(root, "on-gpu-fixed"), Serving(backend="onnxruntime"))
    add(root, "planned")
    configure(find_model(root, "planned"), Serving(backend="tensorrt", precision="f16"))
    return root


@pytest.fixture(scope="module")
def server(repository: Path, trtis_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(trtis_environment, repository, tmp_path_factory.mktemp("trtis")) as found:
        yield found


def windows(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 16), (1, 1, 5, 6, 7)])
def test_the_server_s_numbers_are_the_embedded_engine_s(server, repository, shape):
    answer = infer(server, "one", windows(*shape))
    network = OpenVinoNetwork(repository / "one/1/model.onnx")
    assert np.array_equal(answer["score"].astype(np.float32), network.infer(windows(*shape)))
    assert answer["engine"].tolist() == [network.identity]


def test_several_windows_in_one_request(server, repository):
    given = windows(3, 1, 16, 16, 16)
    answer = infer(server, "several", given)
    network = OpenVinoNetwork(repository / "several/1/model.onnx", precision="f32")
    assert np.array_equal(answer["score"].astype(np.float32), network.infer(given))
    assert answer["engine"].tolist() == [[network.identity]] * 3
    assert "batch-size must be <= 4" in infer(server, "several", windows(5, 1, 4, 4, 4))["error"]


def test_requests_that_come_together_do_not_mix(server, repository):
    """They are computed in one call; the answer of one must not be written over by the next one's."""
    network = OpenVinoNetwork(repository / "several/1/model.onnx", precision="f32")
    given = [windows(1, 1, 16, 16, 16) * factor for factor in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: infer(server, "several", each), given))
    for each, answer in zip(given, answers, strict=True):
        assert np.array_equal(answer["score"].astype(np.float32), network.infer(each))


def test_the_engine_is_named_where_it_is_asked_for(server):
    assert set(infer(server, "one", windows(1, 1, 4, 4, 4), outputs=("score",))) == {"score"}
    assert set(infer(server, "one", windows(1, 1, 4, 4, 4), outputs=("engine",))) == {"engine"}


def test_what_is_wrong_with_a_request_is_said(server):
    assert "Expected [1,1,-1,-1,-1], got [1,1,4,4]" in infer(server, "one", windows(1, 1, 4, 4))["error"]
    assert "Expected [1,1,-1,-1,-1], got [1,2,4,4,4]" in infer(server, "one", windows(1, 2, 4, 4, 4))["error"]
    assert "INT32" in infer(server, "one", np.ones((1, 1, 4, 4, 4), np.int32), datatype="INT32")["error"]
    before = infer(server, "of-one-size", windows(1, 1, 16, 16, 16))
    assert "Expected [1,1,16,16,16]" in infer(server, "of-one-size", windows(1, 1, 16, 16, 17))["error"]
    assert np.array_equal(infer(server, "of-one-size", windows(1, 1, 16, 16, 16))["score"], before["score"])


def test_a_window_that_the_network_does_not_take_is_said_and_the_next_one_is_computed(tmp_path, trtis_environment):
    """The graph leaves its sizes open, but it only works on multiples of four."""
    root = tmp_path / "models"
    add(root, "picky")
    file = root / "picky/1/model.onnx"
    picky(file)
    receipt = json.loads((root / "picky/installed.json").read_text())
    receipt["sha256"] = sha256_of(file)
    (root / "picky/installed.json").write_text(json.dumps(receipt))
    with running(trtis_environment, root, tmp_path / "trtis") as server:
        error = infer(server, "picky", windows(1, 1, 5, 4, 4))["error"]
        assert error.startswith("the network failed on windows of [1, 1, 5, 4, 4]: ")
        assert "\n" not in error
        assert infer(server, "picky", windows(1, 1, 8, 4, 4))["score"].shape == (1, 1, 4, 16, 2)

        def counted():
            (row,) = model_rows(server)
            return row.counters.requests, row.counters.failures

        wait_until(lambda: counted() == (1, 1))  # the server answers first, and counts then


def kernel_log() -> str:
    done = subprocess.run(["dmesg"], capture_output=True, text=True, check=False) if shutil.which("dmesg") else None
    if done is None or done.returncode:
        pytest.skip("the kernel's log may not be read here, and nothing else tells how a process of the server ended")
    return done.stdout


def test_the_processes_of_a_model_end_in_order(tmp_path, trtis_environment):
    kernel_log()
    add(tmp_path / "models", "one")
    with running(trtis_environment, tmp_path / "models", tmp_path / "trtis") as server:
        infer(server, "one", windows(1, 1, 8, 4, 4))
        (process,) = psutil.Process(server.pid).children()
    assert f"[{process.pid}]: segfault" not in kernel_log()


def picky(path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 1, 4, 16, -1], np.int64), "shape")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, *axes])
        for name, axes in (("image", "xyz"), ("score", "abc"))
    ]
    node = helper.make_node("Reshape", ["image", "shape"], ["score"])
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], initializer=[shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_server_reads_the_configuration_as_it_was_meant(server, repository):
    one, several, two, fixed = (
        ask_json(server.port, "GET", f"/v2/models/{name}/config")
        for name in ("one", "several", "two-instances", "of-one-size")
    )
    assert one["max_batch_size"] == 0
    assert one["input"][0]["dims"] == [1, 1, -1, -1, -1]
    assert one["output"][0]["dims"] == [1, 2, -1, -1, -1]
    assert "dynamic_batching" not in one
    assert {name: entry["string_value"] for name, entry in one["parameters"].items()} == {
        "sha256": find_model(repository, "one").sha256,
        "precision": "auto",
        "window": "16x16x16",
        "version": "1",
    }
    assert several["max_batch_size"] == 4
    assert several["input"][0]["dims"] == [1, -1, -1, -1]
    assert several["parameters"]["precision"]["string_value"] == "f32"
    assert [(group["kind"], group["count"]) for group in two["instance_group"]] == [("KIND_CPU", 2)]
    assert fixed["input"][0]["dims"] == [1, 1, 16, 16, 16]


def test_what_is_not_served_has_a_reason(server):
    states = {state.name: state for state in model_states(server)}
    assert "is not the file that was installed" in states["damaged"].reason
    # Read whole, and refused only for want of the backend, which the wheel does not carry.
    for name in ("on-gpu", "on-gpu-fixed"):
        assert "unable to find backend library for backend 'onnxruntime'" in states[name].reason
    assert "unable to find backend library for backend 'tensorrt'" in states["planned"].reason
    assert {name for name, state in states.items() if state.is_ready} == {
        "one", "several", "two-instances", "of-one-size",
    }  # fmt: skip


def test_figures_grow(server):
    def row():
        return next(row for row in model_rows(server) if row.model.name == "two-instances")

    before = row().counters
    infer(server, "two-instances", windows(1, 1, 16, 16, 16))
    wait_until(lambda: row().counters.requests > before.requests)  # the server answers first, and counts then
    after = row().counters
    assert (after.requests, after.inferences) == (before.requests + 1, before.inferences + 1)
    assert after.latency_ms >= after.compute_ms > 0


def test_a_change_takes_effect_when_the_model_is_loaded_again(server, repository):
    configure(find_model(repository, "one"), Serving(instances=2))
    load_model(server, "one")
    assert ask_json(server.port, "GET", "/v2/models/one/config")["instance_group"][0]["count"] == 2
    configure(find_model(repository, "one"), Serving())
    load_model(server, "one")


def test_what_an_earlier_version_installed_is_brought_up_to_date(tmp_path, trtis_environment):
    root = tmp_path / "models"
    add(root, "old")
    (root / "old/config.pbtxt").write_text('name: "old"\nbackend: "onnxruntime"\nmax_batch_size: 0\n')
    for name in ("model.py", "openvino_network.py"):
        (root / "old/1" / name).unlink()
    add(root, "older")
    (root / "older/1/openvino_network.py").write_text("# of another version\n")
    add(root, "new")
    add(root, "lost")
    (root / "lost/1/model.onnx").unlink()
    times = {path: path.stat().st_mtime_ns for path in root.glob("new/**/*")}
    said: list[str] = []
    ensure_served(root, say=said.append)
    assert said == [
        (
            "the model lost is damaged: it has no ONNX file that can be read. "
            "Run: clara-wf model install lost --from FOLDER"
        ),
        "old is made ready for the inference server",
        "older is made ready for the inference server",
    ]
    assert {path: path.stat().st_mtime_ns for path in root.glob("new/**/*")} == times
    folder = tmp_path / "trtis"
    try:
        server = start(folder, prepare(trtis_environment, LOCK), root, port=free_port())
        ready = [state.name for state in model_states(server) if state.is_ready]
        assert ready == ["new", "old", "older"]
    finally:
        stop(folder)
    said.clear()
    ensure_served(root, say=said.append)
    assert len(said) == 1
    ensure_served(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("serving", "says"),
    [
        (Serving(max_batch=2), "takes one window at a time: its first dimension is 1"),
        (Serving(queue_delay_us=10), "one window after the other"),
        (Serving(backend="onnxruntime", queue_delay_us=10), "requests that are not batched"),
        (Serving(precision="f16"), "f16 is computed on a GPU"),
        (Serving(backend="onnxruntime", precision="bf16"), "does not compute bf16"),
    ],
)
def test_what_cannot_be_served_so_is_refused_and_nothing_is_written(tmp_path, serving, says):
    root = tmp_path / "models"
    add(root, "one")
    before = (root / "one/config.pbtxt").read_text()
    with pytest.raises(UsageError, match=says):
        configure(find_model(root, "one"), serving)
    assert (root / "one/config.pbtxt").read_text() == before
    assert read_serving(root / "one") == Serving()


def test_a_model_that_is_installed_again_is_served_as_before(tmp_path):
    root = tmp_path / "models"
    add(root, "one", "n")
    wanted = Serving(instances=3, max_batch=2)
    assert configure(find_model(root, "one"), wanted) == ["config.pbtxt", "serving.json"]
    (tmp_path / "source-one/model.yaml").write_text(yaml.safe_dump(described(name="one", version="2", background=True)))
    install_instead("one", root, source=tmp_path / "source-one")
    assert read_serving(root / "one") == wanted
    assert "count: 3" in (root / "one/config.pbtxt").read_text()
    convolution(tmp_path / "source-one/network.onnx", 1)
    install_instead("one", root, source=tmp_path / "source-one")
    assert read_serving(root / "one") == Serving(), "the new network takes one window at a time"


@pytest.mark.parametrize("text", ["{", "[]", '{"backend": "abacus"}', '{"instances": 0}', '{"speed": "high"}'])
def test_settings_that_are_broken_are_said(tmp_path, text):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/serving.json").write_text(text)
    with pytest.raises(InputError, match=r"one/serving\.json is broken.*model configure one --reset"):
        read_serving(tmp_path / "one")


def test_every_backend_s_text_is_pinned(repository):
    """What the wheel's server cannot try, for want of a GPU."""
    backends: dict[str, Backend] = {"on-gpu": "onnxruntime", "on-gpu-fixed": "onnxruntime", "planned": "tensorrt"}
    golden = Path(__file__).parent / "config.pbtxt.golden"
    text = "\n".join((repository / name / "config.pbtxt").read_text() for name in backends)
    text = text.replace(find_model(repository, "on-gpu").sha256, "N").replace(
        find_model(repository, "planned").sha256, "1"
    )
    if os.environ.get("CLARA_WF_RENEW_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()

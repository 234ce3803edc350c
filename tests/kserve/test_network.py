"""A network at an inference server, a real one: the same scores, and a clear word where there are none."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import socket
import threading
import time

import numpy as np
import psutil
import pytest
from served_code import behave, standing, wait_until
from tiny_network import described, install_instead, model_folder, save_network
from triton_server import free_port

from clara_wf.inference.engine import EngineError
from clara_wf.inference.install import install
from clara_wf.inference.repository import find_model
from clara_wf.inference.segment import embedded
from clara_wf.kserve import served_memory
from clara_wf.kserve.address import Address
from clara_wf.kserve.http_wire import HttpWire
from clara_wf.kserve.network import TritonNetwork, wait_for_server
from clara_wf.kserve.served_model import ModelNotServed
from clara_wf.kserve.shared_memory import FOLDER, PREFIX, Region, SharedMemoryLacking
from clara_wf.kserve.wire import ForeignServer, ServerFault, ServerGone, ServerSilent
from clara_wf.model.errors import LackError

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("trtis")]
SHAPE = (16, 16, 16)
LOG = logging.getLogger("test")
#: Models that misbehave: what their code does to the image before it is the answer.
FAULTS = {
    "flat": "image = image[0, 0, 0]",
    "two": "image = np.concatenate([image, image])",
    "broken": "raise ValueError('no such layer')",
    "slow": "open('MARK', 'w').close(); time.sleep(3)",
}


def put(models, name, **changes):
    """Install a network that gives its input back."""
    folder = models.parent / f"own-{name}"
    install(name, models, source=model_folder(folder, described(name=name, **changes)))


def mark(models):
    """The file that the slow model leaves when it begins."""
    return models.parent / "at-it"


def wait_until_at_it(models):
    wait_until(mark(models).exists)
    mark(models).unlink()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    models = tmp_path_factory.mktemp("served") / "models"
    put(models, "tiny")
    for name, answer in FAULTS.items():
        put(models, name)
        behave(models, name, answer=answer.replace("MARK", str(mark(models))))
    put(models, "unloadable")
    behave(models, "unloadable", initialize="raise ValueError('there is no /opt/secret/layer.bin')")
    return models


@pytest.fixture(scope="module")
def server(trtis_environment, models, tmp_path_factory):
    """The server that most tests speak with."""
    with standing(trtis_environment, models, tmp_path_factory.mktemp("trtis")) as stand:
        yield stand.server


@pytest.fixture
def stand(trtis_environment, models, tmp_path):
    """A server of a test's own."""
    mark(models).unlink(missing_ok=True)  # an earlier test's
    with standing(trtis_environment, models, tmp_path / "trtis") as stand:
        yield stand


@pytest.fixture
def network(server, models):
    """Connect, as a stage does; what was made is released in the end."""
    made = []

    def connect(name="tiny", address=None, **options):
        options = {"wait": 20, "say": lambda _: None, "log": LOG, **options}
        made.append(TritonNetwork(address or server.http, find_model(models, name), **options))
        return made[-1]

    yield connect
    for one in made:
        one.release()


def window(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=(1, 1, *shape)).astype(np.float32)


def ours():
    return {path.name for path in FOLDER.glob(f"{PREFIX}*")}


def no_memory(size):
    raise SharedMemoryLacking("none left")


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
@pytest.mark.parametrize("shared", [True, False])
def test_scores_are_those_of_the_embedded_engine(server, network, models, monkeypatch, protocol, shared):
    if not shared:
        monkeypatch.setattr(served_memory, "Region", no_memory)
    here = embedded(find_model(models, "tiny"))
    there = network(address=server.http if protocol == "HTTP" else server.grpc)
    there.prepare(SHAPE)
    for seed in range(3):
        assert np.array_equal(there.infer(window(seed)), here.infer(window(seed)))
    larger = window(3, (24, 16, 32))
    assert np.array_equal(there.infer(larger), larger)
    assert there.identity == f"{here.identity} in Triton 2.51.0"
    assert there.transport == (f"{protocol}, shared memory" if shared else protocol)
    before = there.infer(window(1)).copy()
    there.release()
    assert np.array_equal(there.infer(window(1)), before)


def test_released_means_gone(server, network):
    before = ours()
    there = network()
    there.prepare(SHAPE)
    there.infer(window())
    there.infer(window())
    made = ours() - before
    wire = HttpWire(Address.parse(server.http))
    assert len(made) == 2
    assert made <= set(wire.regions())
    there.release()
    there.release()
    assert not made & ours()
    assert not made & set(wire.regions())


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_shared_memory_may_be_declined(server, models, port, caplog):
    before = ours()
    with caplog.at_level(logging.INFO):
        there = TritonNetwork(f"{port}://{getattr(server, port)}", find_model(models, "tiny"), shared=False)
        there.prepare(SHAPE)
        assert np.array_equal(there.infer(window()), window())
    assert ours() <= before
    assert "memory" not in there.transport + caplog.text
    there.release()


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_proxy_is_not_asked(server, network, monkeypatch, port):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    there = network(address=f"{port}://{getattr(server, port)}", wait=3)
    assert np.array_equal(there.infer(window()), window())


def test_the_log_says_who_computes_and_how(network, caplog, monkeypatch):
    monkeypatch.setattr(served_memory, "Region", no_memory)
    with caplog.at_level(logging.INFO):
        there = network()
        there.infer(window())
        there.infer(window())
    assert sum("Triton 2.51.0 (HTTP), OpenVINO" in text for text in caplog.messages) == 1
    assert caplog.messages.count("no shared memory with the inference server: none left. Images are sent instead") == 1


@pytest.mark.parametrize("enough_for", [0, 1])
def test_memory_for_one_of_two_is_memory_for_none(network, monkeypatch, enough_for):
    make, made = Region, []

    def scarce(size):
        if len(made) == enough_for:
            no_memory(size)
        made.append(make(size))
        return made[-1]

    monkeypatch.setattr(served_memory, "Region", scarce)
    before = ours()
    there = network()
    there.prepare(SHAPE)
    for seed in range(2):
        assert np.array_equal(there.infer(window(seed)), window(seed))
    assert there.transport == "HTTP"
    assert ours() == before


def test_memory_that_the_server_cannot_open_is_done_without(network, caplog, monkeypatch):
    """As on another machine: its folder has no file of this name."""
    make = Region

    def elsewhere(size):
        region = make(size)
        (FOLDER / region.name).unlink()
        return region

    monkeypatch.setattr(served_memory, "Region", elsewhere)
    with caplog.at_level(logging.INFO):
        there = network()
        assert np.array_equal(there.infer(window()), window())
    assert there.transport == "HTTP"
    assert any("no shared memory" in text and "Unable to open" in text for text in caplog.messages)


def test_what_a_killed_stage_left_at_the_server_is_forgotten(server, network):
    wire = HttpWire(Address.parse(server.http))
    orphan, alive = Region(1000), Region(1000)
    wire.register(orphan)
    wire.register(alive)
    orphan.close()
    network().prepare(SHAPE)
    assert orphan.name not in wire.regions()
    assert alive.name in wire.regions()
    wire.unregister(alive.name)
    alive.close()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_protocol_may_be_asked_for(server, network, scheme):
    there = network(address=f"{scheme}://{server.http if scheme == 'http' else server.grpc}")
    assert np.array_equal(there.infer(window()), window())


def test_no_server(network):
    said = []
    began = time.monotonic()
    address = f"localhost:{free_port()}"
    with pytest.raises(LackError) as caught:
        network(address=address, wait=2.5, say=said.append)
    assert time.monotonic() - began > 2.4
    assert f"the inference server {address} does not answer after 2.5 s" in caught.value.message
    assert caught.value.remedy == ("Start it: clara-wf install_trtis. Or leave trtisUri empty for the embedded engine")
    assert said[0] == (
        f"waiting for the inference server {address} (0 of 2.5 s). If there is none, start it: clara-wf install_trtis"
    )


def test_a_server_that_comes_later(stand, models):
    stand.stop()
    said = []
    later = threading.Timer(1.5, stand.start)
    later.start()
    there = TritonNetwork(f"localhost:{stand.port}", find_model(models, "tiny"), wait=60, say=said.append, log=LOG)
    later.join()
    assert any("waiting for the inference server" in text for text in said)
    assert np.array_equal(there.infer(window()), window())
    there.release()


@pytest.mark.parametrize(
    ("scheme", "port"), [("", "metrics"), ("grpc://", "http"), ("http://", "grpc"), ("", "banner")]
)
def test_something_else_listens(server, network, scheme, port):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet():
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.close()

        threading.Thread(target=greet, daemon=True).start()
        numbers = {"metrics": server.port + 2, "http": server.port, "grpc": server.port + 1}
        number = numbers.get(port) or other.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(LackError, match=f"localhost:{number}") as caught:
            network(address=f"{scheme}localhost:{number}", wait=6)
        assert time.monotonic() - began < 60
        other.shutdown(socket.SHUT_RDWR)
    if scheme != "grpc://":
        assert isinstance(caught.value, ForeignServer)


def test_a_port_that_takes_a_connection_and_says_nothing(network):
    with socket.create_server(("127.0.0.1", 0)) as other:
        began = time.monotonic()
        with pytest.raises(LackError, match="did not answer"):
            network(address=f"localhost:{other.getsockname()[1]}", wait=3)
        assert time.monotonic() - began < 60


def test_a_model_that_the_server_does_not_have(network, models, tmp_path):
    put(tmp_path / "models", "elsewhere")
    model = find_model(tmp_path / "models", "elsewhere")
    with pytest.raises(ModelNotServed, match=r"has no model elsewhere \(it has: broken, flat, slow, tiny, two, unload"):
        TritonNetwork(network()._address.__str__(), model, wait=20, say=lambda _: None, log=LOG)


def test_a_version_that_the_server_does_not_have(server, models):
    model = find_model(models, "tiny")
    second = dataclasses.replace(model, file=model.folder / "2/model.onnx")
    with pytest.raises(ModelNotServed, match="has version 1 of the model tiny, not 2"):
        TritonNetwork(server.http, second, wait=20, say=lambda _: None, log=LOG)


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_model_that_does_not_load(server, network, port):
    with pytest.raises(ModelNotServed) as caught:
        network("unloadable", address=getattr(server, port))
    assert caught.value.message.endswith(
        "cannot load the model unloadable: Internal: ValueError: there is no layer.bin"
    )


def test_another_file_of_the_model(server, models):
    other = dataclasses.replace(find_model(models, "tiny"), sha256="0" * 64)
    with pytest.raises(ModelNotServed, match="has another file of the model tiny than is installed here"):
        TritonNetwork(server.http, other, wait=20, say=lambda _: None, log=LOG)


def test_a_model_that_was_installed_anew_is_loaded_anew(stand, models, tmp_path):
    """The server has loaded the old one."""
    put(models, "fresh")
    before = TritonNetwork(stand.server.http, find_model(models, "fresh"), say=lambda _: None, log=LOG)
    assert np.array_equal(before.infer(window()), window())
    folder = model_folder(tmp_path / "negative", described(name="fresh", version="2"))
    save_network(folder / "network.onnx", operation="Neg")
    install_instead("fresh", models, source=folder)
    after = TritonNetwork(stand.server.http, find_model(models, "fresh"), say=lambda _: None, log=LOG)
    assert np.array_equal(after.infer(window()), -window())
    before.release()
    after.release()


@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("flat", EngineError, r"gave 2 dimensions \[16, 16\]"),
        ("two", EngineError, "gave 2 answers for 1 windows"),
        ("broken", ServerFault, "no such layer"),
    ],
)
def test_answers_that_are_none(server, network, name, kind, said, port):
    there = network(name, address=getattr(server, port))
    for _ in range(2):
        with pytest.raises(kind, match=said):
            there.infer(window())


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_server_that_takes_too_long(server, network, port):
    there = network("slow", address=getattr(server, port), timeout=1)
    with pytest.raises(ServerSilent, match="did not answer within 1 s"):
        there.infer(window())
    time.sleep(2.5)  # it is at it still, and the next test wants it at rest


@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_server_that_is_killed_in_mid_inference_and_started_again(stand, models, monkeypatch, port, shared):
    if not shared:
        monkeypatch.setattr(served_memory, "Region", no_memory)
    address = getattr(stand.server, port)
    said = []
    there = TritonNetwork(address, find_model(models, "slow"), say=said.append, log=LOG)
    there.infer(window(1))
    wait_until_at_it(models)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(there.infer(window(2)).copy()))
    thread.start()
    wait_until_at_it(models)
    stand.kill()
    wait_until(lambda: said)
    stand.start()
    thread.join(60)
    assert np.array_equal(answers[0], window(2))
    assert any("waiting for the inference server" in text for text in said)
    there.release()


def test_a_server_that_was_started_again_between_two_windows(stand, models):
    """It knows no region any more, and nobody noticed."""
    there = TritonNetwork(stand.server.http, find_model(models, "tiny"), say=lambda _: None, log=LOG)
    there.infer(window(1))
    there.infer(window(1))
    stand.kill()
    stand.start()
    assert np.array_equal(there.infer(window(2)), window(2))
    assert there.transport == "HTTP, shared memory"
    there.release()


def test_a_server_that_goes_away_and_stays_away(stand, models, monkeypatch):
    monkeypatch.setattr("clara_wf.kserve.network._COMING_BACK", 3.0)
    before = ours()
    there = TritonNetwork(stand.server.http, find_model(models, "slow"), wait=1, say=lambda _: None, log=LOG)
    trouble = threading.Thread(target=lambda: (wait_until_at_it(models), stand.kill()))
    trouble.start()
    with pytest.raises(LackError, match="does not answer after 3 s"):
        there.infer(window())
    trouble.join()
    there.release()
    assert ours() <= before


def test_a_server_that_goes_away_twice(stand, models):
    there = TritonNetwork(stand.server.http, find_model(models, "slow"), say=lambda _: None, log=LOG)

    def trouble():
        wait_until_at_it(models)
        stand.kill()
        mark(models).unlink(missing_ok=True)  # of the server that is gone
        stand.start()
        wait_until_at_it(models)
        stand.kill()

    thread = threading.Thread(target=trouble)
    thread.start()
    with pytest.raises(ServerGone, match="went away twice"):
        there.infer(window())
    thread.join()
    assert ServerGone.retriable
    there.release()


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_more_than_a_message_carries(server, network, monkeypatch, port):
    """Triton itself would end of it. The zeros take no memory here."""
    monkeypatch.setattr(served_memory, "Region", no_memory)
    there = network(address=getattr(server, port))
    with pytest.raises(EngineError, match=r"a window of 4.0 GiB is more than \w+ carries"):
        there.infer(np.zeros((1, 1, 1024, 1024, 1024), np.float32))


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_an_answer_that_is_larger_than_described(server, models, port):
    model = find_model(models, "tiny")
    shorter = dataclasses.replace(model.description.window, margin=(1, 1, 1))
    model = dataclasses.replace(model, description=dataclasses.replace(model.description, window=shorter))
    there = TritonNetwork(getattr(server, port), model, say=lambda _: None, log=LOG)
    for seed in range(2):
        assert np.array_equal(there.infer(window(seed)), window(seed))
    there.release()


def test_waiting_asks_once_at_least(server):
    assert wait_for_server(Address.parse(server.http), 0, lambda _: None).version() == "2.51.0"


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_model_whose_process_was_killed_is_loaded_anew(stand, models, port, caplog):
    """The server takes it for ready, and answers every request with an error."""
    there = TritonNetwork(getattr(stand.server, port), find_model(models, "tiny"), say=lambda _: None, log=LOG)
    there.infer(window(1))
    for process in psutil.Process(stand.server.pid).children(recursive=True):
        if process.status() != psutil.STATUS_ZOMBIE and any("/tiny/" in word for word in process.cmdline()):
            process.kill()
    assert np.array_equal(there.infer(window(2)), window(2))
    assert "is not healthy. The model is loaded anew, and asked once more" in caplog.text
    there.release()
    stand.kill()  # by itself it would wait long for the process that was killed


def test_a_repository_that_cannot_be_listed(stand, models):
    """The server has what is asked for, or loads it."""
    (models / "dead").symlink_to("/nowhere")
    try:
        there = TritonNetwork(stand.server.http, find_model(models, "tiny"), say=lambda _: None, log=LOG)
        assert np.array_equal(there.infer(window()), window())
        put(models, "newer")
        there = TritonNetwork(stand.server.http, find_model(models, "newer"), say=lambda _: None, log=LOG)
        assert np.array_equal(there.infer(window()), window())
    finally:
        (models / "dead").unlink()
        shutil.rmtree(models / "newer", ignore_errors=True)


def test_whoever_waits_is_told_at_once_what_to_do():
    def give_up(text):
        raise InterruptedError(text)

    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address.parse(f"http://127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(InterruptedError, match=r"If there is none, start it: clara-wf install_trtis$"):
            wait_for_server(address, 600, give_up)

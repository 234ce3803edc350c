"""The stage with an inference server: a real one, started for these tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from served_code import behave, standing, wait_until
from tiny_network import described, model_folder
from triton_server import free_port

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import read_volume, write_volume
from clara_wf.imaging.record import VolumeRecord, read_record, write_record
from clara_wf.imaging.volume import Volume
from clara_wf.inference.install import install
from clara_wf.kserve.address import Address
from clara_wf.kserve.http_wire import HttpWire
from clara_wf.kserve.shared_memory import FOLDER, PREFIX
from clara_wf.model.locks import Lock

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("trtis")]
GEOMETRY = VolumeGeometry(shape=(20, 24, 28), spacing=(3.0, 2.0, 2.0), origin=(-30.0, -20.0, 10.0))
LABEL = described()["labels"][0]
#: The outer network, the one that works within it, and some that misbehave.
DESCRIPTIONS = {
    "bright": {"labels": [{**LABEL, "value": 3}]},
    "brighter": {
        "labels": [{**LABEL, "value": 5, "name": "brighter"}],
        "within": {"model": "bright"},
        "threshold": 300,
    },
    "nan": {},
    "shrunk": {},
    "slow": {},
}
#: Takes as long as a test wants, two minutes at most.
SLOW = """
open('MARK-began', 'w').close()
end = time.monotonic() + 120
while not os.path.exists('MARK-go') and time.monotonic() < end:
    time.sleep(0.05)
open('MARK-ended', 'w').close()
"""
CODE = {
    "nan": "image = image.copy(); image[0, 0, 5, 5, 5] = np.nan",
    "shrunk": "image = image[..., 1:]",
    "slow": SLOW,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for name, changes in DESCRIPTIONS.items():
        description = described(name=name, spacing_mm=[2, 2, 3], **changes)
        install(name, folder / "models", source=model_folder(folder / name, description))
    for name, answer in CODE.items():
        behave(folder / "models", name, answer=answer.replace("MARK", f"{folder}/{name}"))
    return folder / "models"


@pytest.fixture(scope="module")
def server(trtis_environment, models, tmp_path_factory):
    with standing(trtis_environment, models, tmp_path_factory.mktemp("trtis")) as stand:
        yield stand.server


@pytest.fixture
def app(tmp_path, models):
    """A payload with a volume, and the repository that the server has."""
    app = tmp_path / "app"
    for name in ("input", "output", "locks", "logs"):
        (app / name).mkdir(parents=True)
    (app / "models").symlink_to(models)
    image = np.full(GEOMETRY.shape, -200, np.int16)
    image[4:9, 5:15, 6:20] = np.arange(14) * 50
    write_record(app / "input/a.mhd", VolumeRecord(kind="image", modality="CT", units="HU"))
    write_volume(app / "input/a.mhd", Volume(geometry=GEOMETRY, array=image))
    return app


def stage(root, app, uri, *args, model="bright", module="ai_vnet"):
    variables = {
        "STAGENAME": "ai-vnet",
        "JOBID": "00000000-0000-0000-0000-000000000000",
        "APPDIR": str(app),
        "INPUTS": "input",
        "OUTPUTS": "output",
        "LOCKDIR": "locks",
        "LOCKNAME": "ai-vnet.lock",
        "RUNSIMPLE": "TRUE",
        "LOGNAME": "logs/ai-vnet.log",
        "TRTISURI": uri,
    }
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    environment |= {f"NVIDIA_CLARA_{name}": value for name, value in variables.items()}
    return subprocess.Popen(
        [sys.executable, "-m", f"clara_wf.operators.{module}", "--model", model, *args],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(root, app, uri, *args, **options):
    """Run the stage to its end: its code, its lock and its log."""
    shutil.rmtree(app / "output")
    (app / "output").mkdir()
    with stage(root, app, uri, *args, **options) as process:
        _, log = process.communicate(timeout=120)
    return process.returncode, Lock.read(app / "locks/ai-vnet.lock"), log


def result(app):
    return read_volume(app / "output/a.seg.mhd").array.copy(), read_record(app / "output/a.seg.mhd")


def ours():
    return {path.name for path in FOLDER.glob(f"{PREFIX}*")}


@pytest.mark.parametrize("module", ["ai_vnet", "ai_livertumor"])
def test_labels_are_those_of_the_embedded_engine(root, app, server, module):
    before = ours()
    code, _, log = run(root, app, "", model="brighter", module=module)
    assert code == 0, log
    labels, record = result(app)
    assert set(np.unique(labels)) == {0, 3, 5}
    for uri, transport in ((server.http, "HTTP"), (f"grpc://{server.grpc}", "gRPC")):
        code, lock, log = run(root, app, uri, model="brighter", module=module)
        assert (code, lock.state) == (0, "completed"), log
        other, there = result(app)
        assert np.array_equal(labels, other)
        assert there.measurements == record.measurements
        assert there.algorithm.engine == f"{record.algorithm.engine} in Triton 2.51.0"
        assert f"({transport}, shared memory), OpenVINO" in log
    assert ours() <= before


def test_every_line_of_the_log_is_a_log_line(root, app, server):
    """What libraries print would be taken for something that a patient's name may stand in."""
    for uri in (server.http, server.grpc):
        _, _, log = run(root, app, uri)
        for line in log.splitlines():
            assert json.loads(line)["stage"] == "ai-vnet"


def test_no_server(root, app):
    address = f"localhost:{free_port()}"
    code, lock, log = run(root, app, address, "--trtis-wait", "2")
    assert code == 3
    assert lock.state == "failed"
    assert lock.message.startswith(f"the inference server {address} does not answer after 2 s (")
    assert lock.message.endswith("Start it: clara-wf install_trtis. Or leave trtisUri empty for the embedded engine")
    waits = [entry for entry in map(json.loads, log.splitlines()) if "progress" in entry]
    assert waits[0]["message"].startswith(f"waiting for the inference server {address} (0 of 2 s)")
    assert waits[0]["message"].endswith("start it: clara-wf install_trtis")
    assert not (app / "output/segmentation.json").exists()


@pytest.mark.parametrize("args", [("--trtis-wait", "-1"), ("--trtis-timeout", "nan"), ("--trtis-wait", "soon")])
def test_what_is_no_number_of_seconds(root, app, args):
    code, lock, _ = run(root, app, "localhost:8000", *args)
    assert code == 2
    assert args[0] in lock.message


def test_what_is_no_address(root, app):
    code, lock, _ = run(root, app, "https://localhost:8000")
    assert code == 2
    assert "Write host:port, http://host:port or grpc://host:port" in lock.message


@pytest.mark.parametrize(("model", "said"), [("nan", "no numbers"), ("shrunk", "voxels for a window")])
def test_answers_that_are_no_scores(root, app, server, model, said):
    code, lock, log = run(root, app, server.http, model=model)
    assert code == 1, log
    assert said in lock.message


@pytest.fixture
def slow(models):
    """Give the slow model's marks in this test: a window has "began", it shall "go" on, it has "ended"."""
    for path in models.parent.glob("slow-*"):
        path.unlink()
    yield lambda what: models.parent / f"slow-{what}"
    (models.parent / "slow-go").touch()


def test_a_window_that_takes_too_long(root, app, server, slow):
    code, lock, _ = run(root, app, server.http, "--trtis-timeout", "1", model="slow")
    assert code == 3
    assert "did not answer within 1 s" in lock.message
    assert "--trtis-timeout" in lock.message
    assert not slow("ended").exists()  # it is at it still
    slow("go").touch()
    wait_until(slow("ended").exists)


def begun(server):
    """Whether the server has a stage's regions."""
    return {name for name in HttpWire(Address.parse(server.http)).regions() if name.startswith(PREFIX)}


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_stage_that_is_canceled_leaves_nothing(root, app, server, slow, port):
    before = ours()
    with stage(root, app, f"{port}://{getattr(server, port)}", model="slow") as process:
        wait_until(slow("began").exists)
        assert ours() - before
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert not slow("ended").exists()
    assert process.returncode == 130
    assert {json.loads(line)["stage"] for line in log.splitlines()} == {"ai-vnet"}
    assert ours() <= before
    slow("go").touch()
    wait_until(slow("ended").exists)
    # What the server was still at, it could not forget at once: the next stage sees to that.
    assert run(root, app, server.http)[0] == 0
    assert not begun(server)


def test_what_a_killed_stage_leaves_the_next_one_clears(root, app, server, slow):
    before = ours()
    with stage(root, app, server.http, model="slow") as process:
        wait_until(slow("began").exists)
        process.kill()
        process.communicate(timeout=60)
    left = ours() - before
    assert left
    slow("go").touch()
    wait_until(slow("ended").exists)
    assert run(root, app, server.http)[0] == 0
    assert not left & ours()
    assert not begun(server)

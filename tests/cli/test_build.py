"""`clara-wf build`: what it says where it cannot build, and the folder that it writes for building by hand."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from base_image import BASE_IMAGE as BASE
from image_builder import REPOSITORY
from program import Program

from clara_wf.cli.build import _disk_named
from clara_wf.containers import packages
from clara_wf.containers.engine import CHOICE, find_engine
from clara_wf.containers.images import find_image
from clara_wf.model.errors import LackError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recoon"], "error: there is no stage 'recoon'. Did you mean 'recon'? `clara-wf ls` lists all."),
        (["--workflow", "nothing"], "error: there is no workflow 'nothing'. `clara-wf workflows` lists all."),
        (["recon", "--workflow", "ct-ai"], "error: name stages or --workflow, not both"),
        (
            ["recon", "dicom-reader", "--context", "DIR"],
            "error: --context is for one stage. Name it: clara-wf build STAGE --context DIR",
        ),
        (
            ["recon", "--base-image", "--privileged"],
            "error: --base-image --privileged is no image's name. Name one: --base-image IMAGE",
        ),
    ],
)
def test_a_wrong_use_is_told_in_one_line(clara: Program, arguments: list[str], message: str) -> None:
    # An engine that is none: nothing is built, whatever this machine has.
    ended = clara("build", *arguments, **{CHOICE: "/nowhere/podman"})
    assert ended.err.splitlines() == [message]
    assert ended.code == 2


def test_without_an_engine_the_line_names_both(clara: Program, tmp_path: Path) -> None:
    ended = clara("build", "recon", PATH=str(tmp_path))
    assert ended.code == 3
    (line,) = ended.err.splitlines()
    assert line == (
        "error: there is no program for containers: podman is not on the PATH; docker is not on the PATH. "
        "Install podman 4.0 or newer, or docker and start its daemon"
    )


def test_a_stage_whose_image_comes_from_elsewhere_is_named_or_left_alone(clara: Program, tmp_path: Path) -> None:
    assert clara("cs", "foreign", "--image", "vendor/foreign:2.1").code == 0
    ended = clara("build", "foreign")
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line == (
        "error: stage 'foreign' has no images/foreign/Dockerfile: its image vendor/foreign:2.1 comes from elsewhere. "
        "Write one to build it here"
    )
    every = clara("build", PATH=str(tmp_path))
    assert every.err.splitlines()[0] == "foreign: its image vendor/foreign:2.1 comes from elsewhere; it is left alone"


def test_a_folder_to_build_from_by_hand(clara: Program, tmp_path: Path) -> None:
    assert clara("cs", "smooth", "--code").code == 0
    target = tmp_path / "by-hand"
    ended = clara("build", "smooth", "--context", target)
    assert ended.code == 0, ended.err
    assert ended.out == (
        "Build it by: docker build --tag clara-wf/smooth:0.1.0 "
        f"--build-arg BASE_IMAGE=clara-wf/dicom-reader:0.1.0 {target}\n"
    )
    assert {path.name for path in target.iterdir()} == {"Dockerfile", "stage_smooth.py", "test_stage_smooth.py"}
    again = clara("build", "smooth", "--context", target)
    assert again.err.splitlines() == [f"error: {target} is not empty. Name a new folder"]
    assert again.code == 2


_FULL = (
    "the disk is full: packages are installed in /cache, by way of /tmp/here. "
    "Make room there, or name other folders by XDG_CACHE_HOME and TMPDIR"
)
_MISMATCH = (
    "a package is not the one that the image's lock file names: its hash is another. "
    "Install it from another index, or renew requirements.lock if you trust it"
)
_OTHER = "the packages of an image could not be installed: It failed. Check the network and pip's settings"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", _FULL),
        ("shutil.Error: [('/a', '/b', \"[Errno 122] Disk quota exceeded: '/a' -> '/b'\")]\n", _FULL),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If...\n  Got 11\n", _MISMATCH),
        ("ERROR: It failed.\n", _OTHER),
    ],
)
def test_what_pip_says_becomes_one_line(said: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp/here")
    assert str(packages._fault(said, Path("/cache"))) == message


def test_a_write_without_a_file_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, _disk_named(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path)


@pytest.mark.containers
@pytest.mark.xdist_group("containers")
class TestWithAnEngine:
    @pytest.fixture(autouse=True)
    def _engine(self) -> None:
        try:
            self.engine = find_engine()
        except LackError as fault:
            pytest.skip(str(fault))

    def test_a_base_image_that_is_nowhere_is_told_with_the_option_that_names_another(self, clara: Program) -> None:
        ended = clara("build", "dicom-writer", "--base-image", "localhost/nowhere/python:0")
        assert ended.code == 3
        said, line = ended.err.splitlines()
        assert said == "dicom-writer: pulling the base image localhost/nowhere/python:0"
        assert line == (
            "error: the base image localhost/nowhere/python:0 is not on this machine and cannot be pulled. "
            f"Load it (`{self.engine.kind} load -i FILE`), or name one that is here: --base-image"
        )

    def test_a_workflow_s_images_are_built_and_saved(self, clara: Program, tmp_path: Path) -> None:
        if find_image(self.engine, BASE) is None:
            pytest.skip(f'the base image {BASE} is not on this machine: eval "$(sh .ci/start-containers)"')
        values = clara.workspace / "charts/clara-workflow/values.yaml"
        values.write_text(values.read_text().replace('"clara-wf/', f'"{REPOSITORY}/'))
        archives = tmp_path / "archives"
        command = ("build", "--workflow", "dicom-reader-writer", "--base-image", BASE)

        first = clara(*command, "--save", archives, "--json")
        second = clara(*command)

        assert first.code == 0, first.err
        built = json.loads(first.out)
        assert [entry["stage"] for entry in built] == ["dicom-reader", "dicom-writer"]
        assert all(0 < entry["bytes"] < 250e6 for entry in built)
        assert {file.name for file in archives.iterdir()} == {"dicom-reader.tar", "dicom-writer.tar"}
        header, *rows = second.out.splitlines()
        assert header.split() == ["Image", "Size", "Time"]
        assert [row.split()[0] for row in rows] == [f"{REPOSITORY}/dicom-{kind}:0.1.0" for kind in ("reader", "writer")]
        assert all("unchanged" in row for row in rows)

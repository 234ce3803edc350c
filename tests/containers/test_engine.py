"""Docker or podman that fails, or is none: told in one line, by its own last word."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from program import Program

from clara_wf.containers.archive import save_image
from clara_wf.containers.engine import Engine, EngineFailed, find_engine
from clara_wf.containers.images import Image
from clara_wf.model.errors import LackError

IMAGE = Image(name="localhost/some/image:1", id="1", size=1, labels={}, tags=(), unrecorded=0, layers=1)
#: More than a pipe holds.
NOISE = "head -c 200000 /dev/zero | tr '\\0' 'x' >&2; echo >&2"
CAUSE = "Error: no space left on device"


@pytest.fixture
def make_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Engine]:
    """Put a program on the PATH that answers as podman does, and carries out a script when it is to save an image."""

    def make(script: str) -> Engine:
        folder = tmp_path / "programs"
        folder.mkdir()
        program = folder / "podman"
        program.write_text(f'#!/bin/sh\n[ "$1" != info ] || {{ echo "5.4.2|true"; exit; }}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return find_engine("podman")

    return make


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An image as podman saves it, as far as that matters here."""
    file = tmp_path / "image.tar"
    text = json.dumps([{"Config": "1.json", "RepoTags": [IMAGE.name], "Layers": []}]).encode()
    with tarfile.open(file, "w") as made:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(text)
        made.addfile(member, io.BytesIO(text))
    return file


def test_a_program_that_says_much_before_it_fails_is_quoted(
    make_podman: Callable[[str], Engine], tmp_path: Path
) -> None:
    engine = make_podman(f"{NOISE}; echo '{CAUSE}' >&2; exit 125")
    with pytest.raises(EngineFailed) as caught:
        save_image(engine, IMAGE, "some/image:1", tmp_path / "out/image.tar")
    assert str(caught.value) == f"`podman save` failed: {CAUSE}"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("said", "told"), [(f"echo '{CAUSE}' >&2", CAUSE), (":", "exit code 3")])
def test_a_program_that_fails_after_a_whole_archive_is_quoted(
    said: str, told: str, make_podman: Callable[[str], Engine], archive: Path, tmp_path: Path
) -> None:
    engine = make_podman(f"cat '{archive}'; {said}; exit 3")
    with pytest.raises(EngineFailed) as caught:
        save_image(engine, IMAGE, "some/image:1", tmp_path / "out/image.tar")
    assert str(caught.value) == f"`podman save` failed: {told}"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_program_that_says_much_and_works_is_no_failure(
    make_podman: Callable[[str], Engine], archive: Path, tmp_path: Path
) -> None:
    engine = make_podman(f"{NOISE}; cat '{archive}'; {NOISE}")
    save_image(engine, IMAGE, "some/image:1", tmp_path / "out/image.tar")
    with tarfile.open(tmp_path / "out/image.tar") as saved:
        content = saved.extractfile("manifest.json")
        assert content is not None
        assert json.load(content)[0]["RepoTags"] == ["some/image:1"]


def test_what_is_no_archive_is_told(make_podman: Callable[[str], Engine], tmp_path: Path) -> None:
    engine = make_podman("yes no archive | head -c 5000000")
    with pytest.raises(EngineFailed, match=r"^`podman save` failed: \S"):
        save_image(engine, IMAGE, "some/image:1", tmp_path / "out/image.tar")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_program_that_is_removed_meanwhile_has_failed(make_podman: Callable[[str], Engine], tmp_path: Path) -> None:
    engine = make_podman("exit 0")
    Path(engine.program).unlink()
    told = f"{engine.program} cannot be started: No such file or directory"
    with pytest.raises(EngineFailed) as caught:
        engine.call("ps")
    assert str(caught.value) == told
    with pytest.raises(EngineFailed) as caught:
        save_image(engine, IMAGE, "some/image:1", tmp_path / "image.tar")
    assert str(caught.value) == told


def test_a_program_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    program = tmp_path / "podman"
    program.write_bytes(b"\x7fELF and nothing else")
    program.chmod(0o755)
    with pytest.raises(LackError, match=r"podman does not work: \S+/podman cannot be started: Exec format error"):
        find_engine(str(program))


@pytest.mark.parametrize(
    ("said", "absent"),
    [
        ("Error response from daemon: No such image: some/image:1", True),
        ("Error response from daemon: No such container: some", True),
        ("Error: No such object: some", True),
        ("Error: some/image:1: image not known", True),
        ("Error: inspecting object: no such container some", True),
        ("Error: failed to find image some/image:1: some/image:1: No such image", True),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", False),
        ("error during connect: lookup host: Name or service not known", False),
        ("Error: layer not known", False),
    ],
)
def test_what_is_not_there_is_told_from_what_does_not_work(said: str, absent: bool) -> None:
    assert EngineFailed(f"`podman image` failed: {said}").is_absent is absent


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a podman of some version on the PATH, and a docker that works, and nothing beside them."""

    def make(version: str) -> None:
        for name, said in {"podman": f"{version}|false", "docker": "28.3.0|[name=seccomp]"}.items():
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\necho '{said}'\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return make


OLD = ["3.4.4", "3.0.1", "3.4.4+ds1", "v2.2.1", "3.4.5-dev"]


@pytest.mark.parametrize("version", OLD)
def test_a_podman_that_could_remove_no_container_is_passed_over(version: str, programs: Callable[[str], None]) -> None:
    programs(version)
    assert find_engine().kind == "docker"


@pytest.mark.parametrize("version", OLD)
def test_a_podman_that_could_remove_no_container_is_refused_where_it_is_chosen(
    version: str, programs: Callable[[str], None]
) -> None:
    programs(version)
    with pytest.raises(LackError) as caught:
        find_engine("podman")
    assert str(caught.value) == (
        f"there is no program for containers: podman does not work: {version} is too old, 4.0 is needed to remove"
        " containers. Install podman 4.0 or newer, or docker and start its daemon"
    )


@pytest.mark.parametrize(
    "version", ["4.0.0", "4.3.1+ds1", "5.0.0-rc1", "v4.9", "4.0.0-dev", "10.1.0", "main", "3f2ab1c"]
)
def test_a_newer_podman_is_taken_and_one_whose_version_says_nothing(
    version: str, programs: Callable[[str], None]
) -> None:
    programs(version)
    found = find_engine()
    assert (found.kind, found.version) == ("podman", version)


def test_an_old_docker_is_not_measured_by_podmans_versions(programs: Callable[[str], None], tmp_path: Path) -> None:
    programs("5.0.0")
    (tmp_path / "docker").write_text("#!/bin/sh\necho '1.13.1|[name=seccomp]'\n")
    assert find_engine("docker").version == "1.13.1"


def test_doctor_tells_what_answers(make_podman: Callable[[str], Engine], clara: Program) -> None:
    make_podman("exit 1")
    found = containers_of(clara, PATH=os.environ["PATH"])
    assert found["ok"]
    assert found["detail"] == "podman 5.4.2"


def test_doctor_tells_why_nothing_works(clara: Program, tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho 'permission denied' >&2\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    found = containers_of(clara, PATH=f"{tmp_path}")
    assert not found["ok"]
    assert found["detail"].endswith(
        "podman is not on the PATH; docker does not work: `docker info` failed: permission denied"
    )
    assert found["remedy"] == "Install podman 4.0 or newer, or docker and start its daemon"
    assert containers_of(clara, CLARA_WF_CONTAINER_ENGINE="runc")["remedy"] == "Name one of them, or a path of one"


def containers_of(clara: Program, **variables: str) -> dict[str, str]:
    findings = json.loads(clara("doctor", "--json", **variables).out)
    (found,) = [finding for finding in findings if finding["name"] == "containers"]
    return dict(found)

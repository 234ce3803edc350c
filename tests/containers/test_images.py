"""Images of the stages, built and run by docker or podman."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from image_builder import REPOSITORY, Builder

from clara_wf import __version__
from clara_wf.chart.scaffold import code_files
from clara_wf.containers.archive import save_image
from clara_wf.containers.images import Built, _check_python, find_image
from clara_wf.containers.recipe import DIGEST_LABEL, read_recipe
from clara_wf.model.errors import UsageError
from clara_wf.phantom.dicom_series import write_ct_series
from clara_wf.phantom.patient import EVERYDAY, make_phantom

pytestmark = [pytest.mark.containers, pytest.mark.xdist_group("containers")]

#: Megabytes, uncompressed and with the base image: what a stage without a network may have.
LIMIT_MB = 250


@pytest.fixture(params=["dicom-reader", "dicom-writer"])
def image(request: pytest.FixtureRequest, reader: Built, writer: Built) -> Built:
    return {"dicom-reader": reader, "dicom-writer": writer}[request.param]


def test_an_image_is_small(image: Built) -> None:
    assert image.image.size < LIMIT_MB * 1e6


def test_an_image_says_what_it_is(image: Built, builder: Builder) -> None:
    labels = image.image.labels
    stage = image.name.split("/")[1].split(":")[0]
    assert labels["org.opencontainers.image.title"] == f"clara-wf {stage}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"].startswith("Apache-2.0")
    assert labels["org.opencontainers.image.description"].endswith("Not for clinical use.")
    assert labels["org.opencontainers.image.base.name"] == builder.base.name.removeprefix("localhost/")
    assert labels[DIGEST_LABEL].startswith("sha256:")


def test_an_image_is_never_root_s_and_starts_its_stage(image: Built, builder: Builder) -> None:
    config = json.loads(builder.engine.call("image", "inspect", image.image.name))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["Cmd"][:2] == ["python", "-m"]
    assert config["WorkingDir"] == "/app"


def test_licences_are_in_the_image_and_tests_are_not(image: Built, builder: Builder) -> None:
    script = (
        "import pathlib, json; root = pathlib.Path('/opt/clara-wf/packages'); "
        "places = [str(p.relative_to(root)) for p in root.rglob('*')]; print(json.dumps(places))"
    )
    places = json.loads(builder.run(image.image, "python", "-c", script))
    numpy = [place for place in places if place.startswith("numpy-") and place.endswith("LICENSE.txt")]
    assert numpy
    assert "Apache License" in builder.run(image.image, "cat", "/opt/clara-wf/source/LICENSE")
    assert not [place for place in places if "/tests/" in place and place.endswith(".py")]
    assert not [place for place in places if place.endswith((".pyi", ".pyx"))]


def test_modules_are_compiled_once_and_for_all(image: Built, builder: Builder) -> None:
    script = (
        "import numpy, clara_wf.stage, importlib.util as u, pathlib, struct\n"
        "for module in (numpy, clara_wf.stage):\n"
        "    compiled = pathlib.Path(u.cache_from_source(module.__file__))\n"
        "    print(struct.unpack('<I', compiled.read_bytes()[4:8])[0], module.__cached__ == str(compiled))\n"
    )
    # 1: named by a hash, which nobody compares; no source is looked at, whatever its time.
    assert builder.run(image.image, "python", "-c", script).splitlines() == ["1 True", "1 True"]


def test_reader_and_writer_work_with_nothing_but_their_folders(
    reader: Built, writer: Built, builder: Builder, tmp_path: Path
) -> None:
    series, volumes, objects = (tmp_path / name for name in ("series", "volumes", "objects"))
    coarse = replace(EVERYDAY, shape=(6, 32, 32), spacing=(50.0, 12.0, 12.0))
    series.mkdir()
    write_ct_series(series, make_phantom(coarse, seed=3).image, seed=3)

    run_stage(builder, reader, "dicom_reader", series, volumes)
    run_stage(builder, writer, "dicom_writer", volumes, objects)

    assert [volume.suffix for volume in sorted(volumes.glob("2.25.*"))] == [".json", ".mhd", ".raw"]
    assert len(list(objects.glob("*/*.dcm"))) == 6
    assert (objects / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_the_reader_has_every_decoder(reader: Built, builder: Builder) -> None:
    script = """
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, JPEGLosslessSV1, RLELossless, UID
import libjpeg
pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    image.SOPClassUID, image.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.2"), UID("1.2.3")
    image.Rows, image.Columns, image.SamplesPerPixel, image.PixelRepresentation = 64, 64, 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PhotometricInterpretation, image.PixelData = "MONOCHROME2", pixels.tobytes()
    image.compress(syntax, generate_instance_uid=False)
    for plugin in get_decoder(syntax).available_plugins:
        image.pixel_array_options(decoding_plugin=plugin)
        assert np.array_equal(image.pixel_array, pixels), (syntax.name, plugin)
        print(syntax.name, plugin)
for syntax in (JPEGBaseline8Bit, JPEGLosslessSV1):
    print(syntax.name, *get_decoder(syntax).available_plugins)
"""
    lines = builder.run(reader.image, "python", "-c", script).splitlines()
    assert "RLE Lossless pylibjpeg" in lines
    assert {"JPEG-LS Lossless Image Compression pyjpegls", "JPEG-LS Lossless Image Compression gdcm"} <= set(lines)
    assert {line.split()[-1] for line in lines if line.startswith("JPEG 2000")} >= {"pylibjpeg", "gdcm"}
    assert {"pylibjpeg", "gdcm"} <= set(lines[-1].split())


def test_what_is_unchanged_is_not_built_again(builder: Builder, reader: Built) -> None:
    again = builder.build("dicom-reader")
    assert not again.new
    assert again.image.id == reader.image.id


def test_a_changed_source_builds_the_image_again(
    builder: Builder, reader: Built, tmp_path: Path, forget: Callable[[str], None]
) -> None:
    name = f"{REPOSITORY}/changing:0.1.0"
    forget(name)
    folder = tmp_path / "changing"
    folder.mkdir()
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY note.txt /opt/\n")
    (folder / "note.txt").write_text("first")

    first = builder.build_recipe(read_recipe(folder), name)
    (folder / "note.txt").write_text("second")
    second = builder.build_recipe(read_recipe(folder), name)

    assert first.new
    assert second.new
    assert builder.run(second.image, "cat", "/opt/note.txt") == "second"
    assert find_image(builder.engine, first.image.id) is None, "the image that was replaced is still here"


def test_a_stage_of_one_s_own_builds_on_the_reader_s_image(
    builder: Builder, reader: Built, tmp_path: Path, forget: Callable[[str], None]
) -> None:
    name = f"{REPOSITORY}/hand-on:0.1.0"
    forget(name)
    folder = tmp_path / "hand-on"
    folder.mkdir()
    for file, text in code_files("hand-on").items():
        (folder / file).write_text(text)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "a.txt").write_text("a")

    built = builder.build_recipe(read_recipe(folder), name, base=reader.image)

    run_stage(builder, built, "stage_hand_on", source, target)
    assert (target / "a.txt").read_text() == "a"


def test_a_base_with_another_python_is_refused(builder: Builder, tmp_path: Path, forget: Callable[[str], None]) -> None:
    name = f"{REPOSITORY}/other-python:0.1.0"
    forget(name)
    folder = tmp_path / "other-python"
    folder.mkdir()
    (folder / "python").write_text("#!/bin/sh\necho 3.12\n")
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY python /opt/\nENV PATH=/opt:$PATH\n")
    (folder / "python").chmod(0o755)
    other = builder.build_recipe(read_recipe(folder), name)

    (folder / "requirements.lock").write_text("numpy==2.4.6 --hash=sha256:0\n")
    with pytest.raises(UsageError, match=r"other-python:0\.1\.0 has Python 3\.12, and the packages are for 3\.11"):
        builder.build_recipe(read_recipe(folder), name, base=other.image)


@pytest.mark.parametrize(
    ("dockerfile", "lack"),
    [
        ("ARG BASE_IMAGE\nFROM scratch\nCOPY python /x\n", "no Python"),
        ("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY python /opt/\nENV PATH=/opt:$PATH\n", "a Python that does not work"),
    ],
)
def test_a_base_without_python_is_refused(
    builder: Builder, tmp_path: Path, forget: Callable[[str], None], dockerfile: str, lack: str
) -> None:
    name = f"{REPOSITORY}/no-python:0.1.0"
    forget(name)
    folder = tmp_path / "no-python"
    folder.mkdir()
    (folder / "python").write_text("#!/bin/sh\nexit 3\n")
    (folder / "python").chmod(0o755)
    (folder / "Dockerfile").write_text(dockerfile)
    other = builder.build_recipe(read_recipe(folder), name)

    (folder / "requirements.lock").write_text("numpy==2.4.6 --hash=sha256:0\n")
    with pytest.raises(UsageError, match=rf"no-python:0\.1\.0 has {lack}, and the packages are for 3\.11"):
        builder.build_recipe(read_recipe(folder), name, base=other.image)


@pytest.mark.parametrize("code", [125, 126, 127])
def test_an_engine_that_runs_no_containers_here_is_excused(builder: Builder, tmp_path: Path, code: int) -> None:
    program = tmp_path / builder.engine.kind
    program.write_text(f"#!/bin/sh\necho 'error setting rlimit: operation not permitted' >&2\nexit {code}\n")
    program.chmod(0o755)
    _check_python(replace(builder.engine, program=str(program)), builder.base)


def test_an_archive_has_the_name_that_a_cluster_looks_for(builder: Builder, reader: Built, tmp_path: Path) -> None:
    file = tmp_path / "archives/dicom-reader.tar"
    save_image(builder.engine, reader.image, reader.name, file)

    assert [entry.name for entry in file.parent.iterdir()] == ["dicom-reader.tar"]
    with tarfile.open(file) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        (manifest,) = json.load(content)
        assert manifest["RepoTags"] == [f"{REPOSITORY}/dicom-reader:0.1.0"]
        assert {manifest["Config"], *manifest["Layers"]} <= set(archive.getnames())


def run_stage(builder: Builder, image: Built, module: str, source: Path, target: Path) -> None:
    """Run a stage to its end, from one folder into another."""
    work = target.with_name(f"{target.name}-work")
    folders = {source: "/app/input", target: "/app/output", work / "locks": "/app/locks", work / "logs": "/app/logs"}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        # Of whatever user: the container's is none of this machine's.
        folder.chmod(0o777)
    names = {"STAGENAME": "stage", "JOBID": "6b1b1f3c-0f9a-4c57-8a61-0d8f0a3b1a11", "APPDIR": "/app"}
    names |= {"INPUTS": "input", "OUTPUTS": "output", "LOCKDIR": "/app/locks", "LOCKNAME": "stage.lock"}
    names |= {"LOGNAME": "/app/logs/stage.log", "TIMEOUT": "100", "RUNSIMPLE": "TRUE"}
    variables = [f"NVIDIA_CLARA_{key}={value}" for key, value in names.items()]
    builder.run(image.image, "env", *variables, "python", "-m", module_path(module), folders=folders)
    assert json.loads((work / "locks/stage.lock").read_text())["state"] == "completed"
    shutil.rmtree(work, ignore_errors=True)


def module_path(module: str) -> str:
    return module if module.startswith("stage_") else f"clara_wf.operators.{module}"

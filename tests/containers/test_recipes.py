"""What the images of the checkout are made of, without building them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import clara_wf
from clara_wf.containers.context import write_context
from clara_wf.containers.modules import files_of_modules
from clara_wf.containers.packages import EPOCH, Wanted
from clara_wf.containers.pruning import prune, read_patterns, strip_symbols
from clara_wf.containers.recipe import Recipe, RecipeFault, read_recipe
from clara_wf.model.errors import UsageError

ROOT = Path(__file__).parents[2]
IMAGES = sorted(file.parent for file in (ROOT / "images").glob("*/requirements.in"))
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
PYTHON_IMAGE = "python:3.11-slim-bookworm"
#: Copied into model repositories, and imported by the inference server alone.
SERVER_S_OWN = {"triton_python_backend_utils", "openvino_network"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small recipe."""
    made = tmp_path / "smooth"
    made.mkdir()
    (made / "Dockerfile").write_text("ARG BASE_IMAGE=some/base:1\nFROM ${BASE_IMAGE}\nCOPY stage_smooth.py /opt/\n")
    (made / "stage_smooth.py").write_text("print('smooth')\n")
    return made


@pytest.mark.parametrize("images", IMAGES, ids=lambda folder: folder.name)
def test_an_image_has_every_package_that_its_modules_import(images: Path) -> None:
    named = set(re.findall(r"^[a-z][a-z0-9-]*", (images / "requirements.in").read_text(), re.MULTILINE))
    offered = packages_distributions()
    for module in imported(read_recipe(images)) - SERVER_S_OWN:
        packages = {re.sub(r"[-_.]+", "-", name).lower() for name in offered[module]}
        assert packages & named, f"{images.name} imports {module} and has none of {packages}"


def imported(recipe: Recipe) -> set[str]:
    """The modules of others that a recipe's own import."""
    found = {name.split(".")[0] for file in recipe.source.values() if file.suffix == ".py" for name in names_in(file)}
    return {name for name in found if name not in sys.stdlib_module_names and name != "clara_wf"}


def names_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("images", IMAGES, ids=lambda folder: folder.name)
def test_no_list_removes_what_a_module_imports(images: Path, tmp_path: Path) -> None:
    recipe = read_recipe(images, common=ROOT / "images/prune.txt")
    assert recipe.packages is not None
    names = {name for file in recipe.source.values() if file.suffix == ".py" for name in names_in(file)}
    places = {f"{name.replace('.', '/')}/__init__.py" for name in names if not name.startswith("clara_wf")}
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    prune(tmp_path, (*recipe.packages.common, *recipe.packages.patterns))
    assert {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.py")} == places


@pytest.mark.parametrize("images", IMAGES, ids=lambda folder: folder.name)
def test_an_image_has_the_versions_and_hashes_that_this_machine_has(images: Path) -> None:
    whole = (ROOT / "requirements.lock").read_text()
    for entry in re.split(r"\n(?=[a-z])", (images / "requirements.lock").read_text().strip()):
        assert entry.rstrip("\n") in whole
    named = re.findall(r"^[a-z][a-z0-9-]*", (images / "requirements.in").read_text(), re.MULTILINE)
    locked = re.findall(r"^([a-z][a-z0-9-]*)==", (images / "requirements.lock").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(locked)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_a_dockerfile_fetches_nothing_and_is_never_root_s(file: Path) -> None:
    instructions = [line.split()[0] for line in file.read_text().splitlines() if re.match(r"[A-Z]+ ", line)]
    assert set(instructions) <= {"ARG", "FROM", "LABEL", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "CMD"}
    assert "USER 10001:10001" in file.read_text()
    base = f"clara-wf/ai-vnet:{clara_wf.__version__}" if file.parent.name == "ai-livertumor" else PYTHON_IMAGE
    assert read_recipe(file.parent).base == base


def test_the_stage_for_tumours_has_its_packages_from_the_image_that_it_builds_on() -> None:
    tumours, organs = (read_recipe(ROOT / "images" / name) for name in ("ai-livertumor", "ai-vnet"))
    assert tumours.packages is None
    assert imported(tumours)
    assert imported(tumours) <= imported(organs)


def test_the_reader_holds_its_own_modules_and_no_others() -> None:
    files = files_of_modules(["clara_wf.operators.dicom_reader"], Path(clara_wf.__file__).parent)
    rooms = {place.split("/")[1] for place in files if place.count("/") > 1}
    assert rooms == {"imaging", "model", "operators", "reconstruction", "stage"}
    assert "clara_wf/imaging/preview.py" not in files
    assert "clara_wf/reconstruction/rtk.py" not in files


def test_what_lies_beside_the_modules_of_a_room_comes_along() -> None:
    files = files_of_modules(["clara_wf.operators.ai_vnet"], Path(clara_wf.__file__).parent)
    assert "clara_wf/inference/catalogue/liver.yaml" in files


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"clara_wf has no module clara_wf\.operators\.nothing"):
        files_of_modules(["clara_wf.operators.nothing"], Path(clara_wf.__file__).parent)


def test_the_digest_tells_every_difference_and_nothing_else(folder: Path) -> None:
    before = read_recipe(folder).digest("base")
    assert read_recipe(folder).digest("base") == before
    assert read_recipe(folder).digest("another base") != before
    changes = {
        "stage_smooth.py": "print('smoother')\n",
        "more.txt": "more",
        "requirements.lock": "numpy==2.0 --hash=sha256:0\n",
        "Dockerfile": "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n",
    }
    digests = {before}
    for name, text in changes.items():
        (folder / name).write_text(text)
        digests.add(read_recipe(folder).digest("base"))
    assert len(digests) == len(changes) + 1
    after = read_recipe(folder).digest("base")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/stage_smooth.pyc").write_bytes(b"compiled")
    (folder / ".notes").write_text("hidden")
    assert read_recipe(folder).digest("base") == after


def test_the_right_to_run_a_file_makes_another_image(folder: Path) -> None:
    script = folder / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o644)
    before = read_recipe(folder).digest("base")
    script.chmod(0o755)
    assert read_recipe(folder).digest("base") != before
    script.chmod(0o600)  # who may read it is settled in the image
    assert read_recipe(folder).digest("base") == before


def test_packages_are_told_apart_by_lock_and_lists() -> None:
    made_of = [("a", (), ()), ("b", (), ()), ("a", ("x",), ()), ("a", (), ("x",))]
    digests = {Wanted(lock=lock, common=common, patterns=own).digest for lock, common, own in made_of}
    assert len(digests) == len(made_of)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM python\n", "has no line ARG BASE_IMAGE"),
        ("ARG BASE_IMAGE\nCOPY source/ /opt/clara-wf/source/\n", "has no line such as: CMD"),
        (
            'ARG BASE_IMAGE\nCOPY source/ /opt/clara-wf/source/\nCMD ["python", "-m", "clara_wf.nothing"]\n',
            r"clara_wf has no module clara_wf\.nothing",
        ),
    ],
)
def test_a_broken_dockerfile_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "Dockerfile").write_text(text)
    with pytest.raises(RecipeFault, match=message):
        read_recipe(folder)


def test_a_folder_without_a_dockerfile_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no Dockerfile"):
        read_recipe(tmp_path)


def test_an_empty_lock_file_is_refused(folder: Path) -> None:
    (folder / "requirements.lock").write_text("")
    with pytest.raises(RecipeFault, match="holds no package"):
        read_recipe(folder)


def test_a_context_is_the_same_whenever_it_is_written(folder: Path, tmp_path: Path) -> None:
    (folder / "stage_smooth.py").chmod(0o600)
    context = tmp_path / "context"
    context.mkdir()
    write_context(read_recipe(folder), context, tmp_path / "cache")
    assert {path.name for path in context.iterdir()} == {"Dockerfile", "stage_smooth.py"}
    for path in context.iterdir():
        assert path.stat().st_mtime == EPOCH
        assert path.stat().st_mode & 0o777 == 0o644


def test_pruning_removes_what_matches_and_keeps_licences(tmp_path: Path) -> None:
    places = ["a/tests/test_a.py", "a/tests/LICENSE.txt", "a/__init__.py", "b/lib.so", "b/lib.so.3", "b/keep.so"]
    places += ["a-1.dist-info/licenses/AUTHORS", "a-1.dist-info/RECORD"]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")

    unused = prune(tmp_path, ("*/tests/*", "b/*.so", "!b/keep.so", "*.dist-info/*", "c/*"))

    assert unused == ("c/*",)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "a/__init__.py",
        "a/tests/LICENSE.txt",
        "b/lib.so.3",
        "b/keep.so",
        "a-1.dist-info/licenses/AUTHORS",
    }


def test_empty_folders_go_with_their_files(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.pyi").write_text("")
    prune(tmp_path, ("*.pyi",))
    assert list(tmp_path.iterdir()) == []


def test_a_list_may_have_remarks(tmp_path: Path) -> None:
    (tmp_path / "prune.txt").write_text("# Tests.\n*/tests/*  # and their data\n\n!a/tests/x\n")
    assert read_patterns(tmp_path / "prune.txt") == ("*/tests/*", "!a/tests/x")
    assert read_patterns(tmp_path / "nothing.txt") == ()


def test_a_stripped_library_can_still_be_loaded(tmp_path: Path) -> None:
    import numpy as np
    from numpy._core import _multiarray_umath

    folder = Path(np.__file__).parents[1] / "numpy.libs"
    libraries = [*folder.glob("*.so*"), Path(_multiarray_umath.__file__)]
    for file in libraries:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if not strip_symbols(tmp_path):
        pytest.skip("strip is not on this machine")
    load = "import ctypes, sys\nfor name in sys.argv[1:]: ctypes.CDLL(name, ctypes.RTLD_GLOBAL)"
    # Each before those that need it.
    order = ["quadmath", "gfortran", "openblas"]
    libraries = [tmp_path / file.name for word in order for file in libraries if word in file.name]
    done = subprocess.run([sys.executable, "-c", load, *libraries], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""What a user brings is recognised by its files, and a zip that a stranger made does no harm."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packages import bundle_config, bundle_metadata, make_bundle, make_export, save_channels
from tiny_network import described, model_folder, save_network

from clara_wf.importers.adding import candidate
from clara_wf.importers.label_codes import label_entries, label_entry
from clara_wf.importers.package import open_package
from clara_wf.importers.torchscript import convert
from clara_wf.importers.translation import Notes, Untranslatable
from clara_wf.importers.unpacking import Limits, unpack
from clara_wf.inference.install import install_described
from clara_wf.inference.repository import find_model, list_models
from clara_wf.model.errors import InputError, LackError, UsageError


def zipped(folder: Path, target: Path, *, under: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*"):
            archive.write(file, f"{under}{file.relative_to(folder)}")
    return target


def kind_of(path: Path) -> str:
    with open_package(path) as package:
        assert package.weights.is_file()
        assert package.configuration.is_file()
        return package.kind


@pytest.mark.parametrize("under", ["", "bundle/", "a/b/"])
def test_the_three_kinds_are_recognised(tmp_path, under):
    made = {
        "ONNX with model.yaml": model_folder(tmp_path / "own", described()),
        "MONAI bundle": make_bundle(tmp_path / "bundle"),
        "nnU-Net export": make_export(tmp_path / "export"),
    }
    for kind, folder in made.items():
        assert kind_of(folder) == kind
        assert kind_of(zipped(folder, tmp_path / f"{folder.name}.zip", under=under)) == kind


def test_what_packers_leave_beside_is_passed_over(tmp_path):
    file = zipped(make_bundle(tmp_path / "bundle"), tmp_path / "bundle.zip", under="bundle/")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("__MACOSX/bundle/._x", b"")
        archive.writestr(".DS_Store", b"")
    assert kind_of(file) == "MONAI bundle"


def test_an_onnx_file_is_read_by_what_lies_beside_it(tmp_path):
    assert kind_of(model_folder(tmp_path / "own", described()) / "network.onnx") == "ONNX with model.yaml"
    export = make_export(tmp_path / "export")
    (export / "fold_all/network.onnx").rename(export / "network.onnx")
    assert kind_of(export / "network.onnx") == "nnU-Net export"
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match=r"neither model\.yaml nor plans\.json.*folder that holds configs"):
        kind_of(bundle / "models/model.onnx")


def test_onnx_comes_before_torchscript(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "models/model.ts").write_bytes(b"PK")
    with open_package(bundle) as package:
        assert package.weights.name == "model.onnx"
    (bundle / "models/model.onnx").rename(bundle / "other.onnx")
    with open_package(bundle) as package:
        assert package.weights.name == "other.onnx"


def test_what_is_not_known_is_told_with_what_was_looked_for(tmp_path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some/readme.txt").write_text("x")
    with pytest.raises(InputError, match=r"model\.yaml.*metadata\.json.*plans\.json.*Found: readme\.txt$"):
        kind_of(tmp_path / "some")
    with pytest.raises(InputError, match="no file or folder nowhere"):
        kind_of(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"readme\.txt is no folder, no zip and no ONNX"):
        kind_of(tmp_path / "some/readme.txt")


def test_pickled_weights_are_not_opened(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", onnx_channels=0)
    (bundle / "models").mkdir()
    # Whoever unpickles this makes a file.
    (bundle / "models/model.pt").write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(InputError, match=r"only as models/model\.pt.*monai\.bundle onnx_export --net_id network_def"):
        kind_of(bundle)
    with pytest.raises(InputError, match="unpickling runs whatever code"):
        kind_of(zipped(bundle, tmp_path / "bundle.zip"))
    export = make_export(tmp_path / "export")
    (export / "fold_all/network.onnx").rename(export / "fold_all/checkpoint_final.pth")
    with pytest.raises(InputError, match=r"checkpoint_final\.pth.*initialize_from_trained_model_folder"):
        kind_of(export)
    assert not (tmp_path / "ran").exists()


def test_one_network_is_needed(tmp_path):
    export = make_export(tmp_path / "export")
    save_channels(export / "fold_0/network.onnx", 3)
    with pytest.raises(InputError, match=r"2 \.onnx files \(fold_0/network\.onnx, fold_all/network\.onnx\), one"):
        kind_of(export)


def archive_of(tmp_path: Path, write: Callable[[zipfile.ZipFile], None]) -> Path:
    file = tmp_path / "trap.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of names that are there twice
        write(archive)
    return file


def link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("configs/link.json")
    member.create_system = 3
    member.external_attr = 0o120777 << 16
    archive.writestr(member, "/etc/passwd")


def pipe(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("configs/pipe.json")
    member.create_system = 3
    member.external_attr = 0o010666 << 16
    archive.writestr(member, "")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda archive: archive.writestr("../evil.json", "{}"), r"'\.\./evil\.json' leads out"),
        (lambda archive: archive.writestr("a/../../evil.json", "{}"), "leads out"),
        (lambda archive: archive.writestr("a/../../evil.bin", "{}"), "leads out"),
        (lambda archive: archive.writestr("/etc/evil.json", "{}"), "is an absolute path"),
        (lambda archive: archive.writestr("C:/evil.json", "{}"), "is an absolute path"),
        (lambda archive: archive.writestr("..\\evil.json", "{}"), "backslash"),
        (link, r"'configs/link\.json' is a symbolic link"),
        (pipe, "no file and no folder"),
    ],
)
def test_a_member_that_leads_elsewhere(tmp_path, write, text):
    folder = tmp_path / "deep/inside"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=text):
        unpack(archive_of(tmp_path, write), folder, suffixes={".json"})
    assert list((tmp_path / "deep").rglob("*")) == [folder], "nothing was written"


def test_a_bomb_ends_at_its_limit(tmp_path):
    file = archive_of(tmp_path, lambda archive: archive.writestr("models/model.onnx", bytes(300 << 20)))
    assert file.stat().st_size < 1 << 20
    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises(InputError, match=r"too large at 'models/model\.onnx'"):
        unpack(file, folder, suffixes={".onnx"}, limits=Limits(slack=8 << 20))
    assert sum(path.stat().st_size for path in folder.rglob("*.onnx")) <= (8 << 20) + 200 * file.stat().st_size
    with pytest.raises(InputError, match="too large"), open_package(file, limits=Limits(total=1 << 20)):
        pass


def test_sizes_that_lie_are_not_believed(tmp_path):
    file = archive_of(tmp_path, lambda archive: archive.writestr("a.json", bytes(40 << 20)))
    content = bytearray(file.read_bytes())
    # The declared size, in the member's own header and in the directory: one byte.
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", content, content.index(signature) + offset, 1)
    file.write_bytes(content)
    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises(InputError, match=r"broken zip|too large"):
        unpack(file, folder, suffixes={".json"}, limits=Limits(slack=1 << 20))
    assert sum(path.stat().st_size for path in folder.rglob("*.json")) <= 10 << 20


def test_too_many_members(tmp_path):
    def write(archive: zipfile.ZipFile) -> None:
        for index in range(30):
            archive.writestr(f"{index}.json", "{}")

    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises(InputError, match="30 members, 20 at most"):
        unpack(archive_of(tmp_path, write), folder, suffixes={".json"}, limits=Limits(members=20))


def test_an_encrypted_member(tmp_path):
    file = archive_of(tmp_path, lambda archive: archive.writestr("a.json", "{}"))
    content = bytearray(file.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"'a\.json' is encrypted"), open_package(file):
        pass


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_a_broken_zip(tmp_path, keep):
    file = zipped(make_bundle(tmp_path / "bundle"), tmp_path / "bundle.zip")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"bundle\.zip is a broken zip"), open_package(file):
        pass


def test_a_member_whose_bytes_are_broken(tmp_path):
    file = zipped(make_bundle(tmp_path / "bundle"), tmp_path / "bundle.zip")
    content = bytearray(file.read_bytes())
    content[content.index(b"metadata.json") + 20 : content.index(b"metadata.json") + 60] = bytes(40)
    file.write_bytes(content)
    with pytest.raises(InputError, match="broken zip"), open_package(file):
        pass


def test_a_name_that_is_there_twice(tmp_path):
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr("a.json", "{}")
        archive.writestr("a.json", "[]")

    with pytest.raises(InputError, match=r"'a\.json' is there twice$"), open_package(archive_of(tmp_path, write)):
        pass


def test_members_that_want_one_place_are_named(tmp_path):
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr("a.json", "{}")
        archive.writestr("a.json/b.json", "[]")

    file = archive_of(tmp_path, write)
    with pytest.raises(InputError, match=r"unpacked: 'a\.json/b\.json': ") as caught, open_package(file):
        pass
    assert "clara-wf-" not in str(caught.value)


@pytest.mark.parametrize("name", ["..zip", "...zip", ".zip"])
def test_a_zip_of_any_name_is_unpacked_into_a_folder_of_its_own(tmp_path, name):
    file = zipped(make_bundle(tmp_path / "bundle"), tmp_path / name)
    assert kind_of(file) == "MONAI bundle"


def test_a_member_s_name_does_not_act_on_a_terminal(tmp_path):
    file = archive_of(tmp_path, lambda archive: archive.writestr("\x1b[2J.json", "{}"))
    with pytest.raises(InputError, match=r"'\\x1b\[2J\.json' has control characters") as caught, open_package(file):
        pass
    assert "\x1b" not in str(caught.value)


def test_a_link_that_leads_out_of_a_folder_is_not_followed(tmp_path):
    secret = tmp_path / "shadow"
    secret.write_text("root:$y$secret: [")
    folder = model_folder(tmp_path / "own", described())
    (folder / "model.yaml").unlink()
    (folder / "model.yaml").symlink_to(secret)
    for path in (folder, folder / "network.onnx"):
        with pytest.raises(InputError, match=r"model\.yaml is a link that leads out of the folder own") as caught:
            kind_of(path)
        assert "secret" not in str(caught.value)
    (folder / "model.yaml").unlink()
    (folder / "model.yaml").symlink_to("real.yaml")
    (folder / "real.yaml").write_text(yaml.safe_dump(described()))
    assert kind_of(folder) == "ONNX with model.yaml", "within the folder links are as good as files"
    (folder / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="loop is a link"):
        kind_of(folder)


@pytest.mark.parametrize(
    ("shape", "window", "text"),
    [
        ((1, 1, 8, 16, 16), {}, "it takes 8x16x16 voxels, its windows are 16x16x16"),
        ((2, 1, "x", "y", "z"), {}, r"it takes 2 windows at once, window\.batch is 1"),
        ((1, 2, "x", "y", "z"), {}, "it takes 2 channels, not one"),
        ((1, 1, 16, 16, 16), {"margin": [2, 2, 2]}, "it gives 16x16x16 voxels of 16x16x16 with a margin of 2x2x2"),
    ],
)
def test_a_network_of_our_own_that_does_not_fit(tmp_path, shape, window, text):
    description = described(window={**described()["window"], **window})
    folder = model_folder(tmp_path / "own", description)
    save_network(folder / "network.onnx", shape=shape)
    with pytest.raises(Untranslatable, match=text), candidate(folder):
        pass


def test_a_network_of_our_own_with_fixed_sizes_that_fit(tmp_path):
    folder = model_folder(tmp_path / "own", described())
    save_network(folder / "network.onnx", shape=(1, 1, 16, 16, 16))
    with candidate(folder) as found:
        assert found.description.window.size == (16, 16, 16)


@pytest.mark.parametrize(
    ("field", "text"), [("title", "a\x1b[2Jb"), ("version", "\ud800"), ("licence", "a\x00b"), ("limits", "\x9b0m")]
)
def test_texts_of_our_own_that_nobody_can_be_shown(tmp_path, field, text):
    folder = model_folder(tmp_path / "own", described(**{field: "PUT"}))
    file = folder / "model.yaml"
    file.write_text(file.read_text().replace("PUT", json.dumps(text)))
    with pytest.raises(InputError, match=rf"{field} '.*' holds control characters") as caught, candidate(folder):
        pass
    assert str(caught.value).isprintable()


def test_labels_of_our_own_have_names_of_dicom_s_length(tmp_path):
    description = described()
    description["labels"][0]["name"] = "x" * 65
    folder = model_folder(tmp_path / "own", description)
    with pytest.raises(InputError, match=r"labels\[0\]\.name 'x+' has 65 characters, 64 at most"), candidate(folder):
        pass


def test_what_is_not_wanted_is_not_unpacked(tmp_path):
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr("a/weights.pt", bytes(1000))
        archive.writestr("a/b.json", "{}")

    folder = tmp_path / "inside"
    folder.mkdir()
    assert unpack(archive_of(tmp_path, write), folder, suffixes={".json"}) == ["a/weights.pt", "a/b.json"]
    assert [path.name for path in folder.rglob("*.*")] == ["b.json"]


def test_torchscript_without_torch(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", onnx_channels=0)
    (bundle / "models").mkdir()
    (bundle / "models/model.ts").write_bytes(b"PK")
    lines = r"torch\.jit\.load.*torch\.onnx\.export.*zeros\(1, 1, 32, 32, 16\)"
    with pytest.raises(LackError, match=lines), candidate(bundle):
        pass


def test_what_is_wrong_with_a_bundle_is_said_before_torchscript_is_converted(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", bundle_config(before=[]), onnx_channels=0)
    (bundle / "models").mkdir()
    (bundle / "models/model.ts").write_bytes(b"PK")
    with pytest.raises(Untranslatable, match="no Orientation"), candidate(bundle):
        pass


def test_a_conversion_that_fails_or_takes_too_long(tmp_path):
    for name, script, patience, text in (
        (
            "fails",
            "echo some text >&2; echo RuntimeError: no such thing >&2; exit 1",
            60,
            "RuntimeError: no such thing",
        ),
        ("silent", "exit 3", 60, "exit 3"),
        ("nothing", "exit 0", 60, "cannot convert"),
        ("slow", "sleep 60", 0.2, "not converted within 0 s"),
    ):
        python = tmp_path / name
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with pytest.raises(InputError, match=text):
            convert(tmp_path / "model.ts", tmp_path / "model.onnx", [8, 8, 8], python=python, patience_s=patience)


def test_a_conversion_starts_where_nothing_of_the_package_lies(tmp_path, monkeypatch):
    """Python imports from the folder that it is started in: a package may hold a torch.py."""
    package, target = tmp_path / "package", tmp_path / "target"
    package.mkdir()
    target.mkdir()
    (package / "model.ts").write_bytes(b"PK")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ntest -f "$3" && pwd >"$4"\n')
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    convert(Path("package/model.ts"), target / "model.onnx", [8, 8, 8], python=python)
    assert (target / "model.onnx").read_text().strip() == str(target.resolve())


def test_a_network_that_does_not_fit(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", onnx_channels=2)
    with pytest.raises(Untranslatable, match="gives 2 channels, the labels are 2 and a background"), candidate(bundle):
        pass
    save_channels(bundle / "models/model.onnx", 3, size=(32, 32, 32))
    with pytest.raises(Untranslatable, match="it takes 32x32x32 voxels, its windows are 32x32x16"), candidate(bundle):
        pass
    (bundle / "models/model.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="no valid ONNX"), candidate(bundle):
        pass
    whole = make_bundle(tmp_path / "whole", bundle_config(inferer={"_target_": "SimpleInferer"}), onnx_channels=0)
    save_channels(whole / "models/model.onnx", 3, size=(32, 32, 32))
    with pytest.raises(Untranslatable, match="is to be given the whole image"), candidate(whole):
        pass


def test_a_network_of_a_fixed_batch_is_given_so_many(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", onnx_channels=0)
    save_channels(bundle / "models/model.onnx", 3, batch=1, size=(32, 32, 16))
    with candidate(bundle) as found:
        assert found.description.window.batch == 1
        assert any("1 window at once" in text for text in found.remarks)


def test_a_model_of_our_own_keeps_its_text(tmp_path):
    folder = model_folder(tmp_path / "own", described())
    with candidate(folder) as found:
        assert found.text == (folder / "model.yaml").read_text()
    with candidate(folder, name="another") as found:
        assert (found.name, found.description.name) == ("another", "another")
        assert found.description.title == described()["title"]
    with pytest.raises(UsageError, match=r"model\.yaml does"), candidate(folder, orientation="RAS"):
        pass
    with pytest.raises(UsageError, match="--configuration is for an nnU-Net"), candidate(folder, configuration="2d"):
        pass
    save_channels(folder / "network.onnx", 2)
    with pytest.raises(Untranslatable, match="gives 2 channels, the labels are 1"), candidate(folder):
        pass


@pytest.mark.parametrize("orientation", ["RAX", "RA", "RLS", "RASS", ""])
def test_an_orientation_that_is_none(tmp_path, orientation):
    with pytest.raises(UsageError, match="three of R/L"), candidate(tmp_path, orientation=orientation):
        pass


def test_another_model_s_name_is_not_taken(tmp_path):
    models = tmp_path / "models"
    with candidate(make_bundle(tmp_path / "bundle")) as found:

        def put(name: str, text: str, *, force: bool = False) -> None:
            install_described(name, models, onnx_file=found.onnx, description_text=text, force=force)

        put("two-things", found.text)
        put("two-things", found.text)
        other = found.text.replace("Two things", "Two other things")
        with pytest.raises(UsageError, match=r"another model is installed as two-things.*--force"):
            put("two-things", other)
        assert find_model(models, "two-things").description.title == "Two things"
        put("two-things", other, force=True)
        assert find_model(models, "two-things").description.title == "Two other things"
        with pytest.raises(UsageError, match="a model that clara-wf fetches"):
            put("liver", found.text)
        with pytest.raises(InputError, match="describes the model two-things, not third"):
            put("third", found.text)
    assert list_models(models) == ["two-things"]
    assert sorted(path.name for path in models.iterdir() if path.is_dir()) == ["two-things"], "nothing is left"


def test_codes_and_colours_of_labels():
    assert label_entry(1, "kidney_left", 0)["type"] == {"value": "64033007", "scheme": "SCT", "meaning": "Kidney"}
    assert label_entry(1, "Left Kidneys", 0)["type"]["meaning"] == "Kidney"
    assert label_entry(1, "vertebrae_T12", 0)["type"]["meaning"] == "T12 vertebra"
    assert label_entry(1, "vertebrae", 0)["type"]["meaning"] == "Vertebra"
    tumour = label_entry(1, "liver tumour", 0)
    assert (tumour["type"]["meaning"], tumour["category"]["value"]) == ("Neoplasm", "49755003")
    unknown = label_entry(1, "a thing that has no name in SNOMED", 0)["type"]
    assert unknown["scheme"] == "99CLARAWF"
    assert len(unknown["value"]) <= 16
    assert unknown["value"] != label_entry(1, "a thing that has no name in RadLex", 0)["type"]["value"]
    assert len({tuple(label_entry(1, "x", index)["color"]) for index in range(255)}) == 255


def test_names_that_give_the_same_code_get_codes_of_their_own():
    notes = Notes()
    entries = label_entries([(1, "A b"), (2, "a_b"), (3, "a-B")], notes)
    assert len({entry["type"]["value"] for entry in entries}) == 3
    assert all(len(entry["type"]["value"]) <= 16 for entry in entries)
    assert not notes.faults


def test_a_bundle_without_a_name_is_called_as_its_file_is(tmp_path):
    target = io.BytesIO()
    save_channels(tmp_path / "model.onnx", 3)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("configs/metadata.json", json.dumps(bundle_metadata(name="")))
        archive.writestr("configs/inference.json", json.dumps(bundle_config()))
        archive.write(tmp_path / "model.onnx", "models/model.onnx")
    (tmp_path / "My bundle v2.zip").write_bytes(target.getvalue())
    with candidate(tmp_path / "My bundle v2.zip") as found:
        assert found.name == "my-bundle-v2", "called as its file is"

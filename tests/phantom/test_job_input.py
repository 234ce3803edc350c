from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.record import read_record
from clara_wf.model.errors import UsageError
from clara_wf.phantom import job_input
from clara_wf.phantom.job_input import Origin, ensure_test_data, origin_of, truth_of
from clara_wf.phantom.scans import fan, parallel
from clara_wf.reconstruction.dicom_ct_pd import open_ct_pd
from clara_wf.reconstruction.inputs import InputOptions, open_inputs

from .conftest import COARSE

JOB = "00000000-0000-0000-0000-000000000000"


def ensure(root: Path, stage: str = "ai-vnet", **options) -> Path:
    return ensure_test_data(root, JOB, stage, geometry=COARSE, **options)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("stage", ["ai-vnet", "ai-livertumor", "my-own-stage"])
def test_a_stage_that_takes_a_volume_gets_the_image(tmp_path, stage, coarse):
    job = ensure(tmp_path / "test-data", stage)
    assert job == tmp_path / "test-data" / JOB
    header = job / stage / "input" / "recon.mhd"
    image = read_volume(header)
    assert image.geometry.is_close(COARSE)
    assert np.array_equal(image.array, coarse.image.array)
    record = read_record(header)
    assert (record.kind, record.modality, record.units) == ("image", "CT", "HU")
    assert len(record.source.instances) == COARSE.shape[0]
    assert sorted(path.name for path in (job / stage / "input").iterdir()) == ["recon.json", "recon.mhd", "recon.raw"]


def test_the_truth_lies_beside_the_input(tmp_path, coarse):
    truth = ensure(tmp_path) / "truth"
    labels = read_volume(truth / "liver.mhd")
    assert np.array_equal(labels.array, coarse.labels.array)
    numbers = json.loads((truth / "truth.json").read_text())
    assert numbers["labels"]["liver"]["volume_ml"] == pytest.approx(
        np.count_nonzero(labels.array) * COARSE.voxel_ml, rel=1e-9
    )
    assert len(numbers["markers"]) == 3


def test_the_reader_gets_a_series_and_the_writer_its_labels(tmp_path, coarse):
    job = ensure(tmp_path, "dicom-reader")
    assert ensure(tmp_path, "dicom-writer") == job
    files = list((job / "dicom-reader" / "input").rglob("*.dcm"))
    header = job / "dicom-writer" / "input" / "recon.seg.mhd"
    record = read_record(header)
    assert np.array_equal(read_volume(header).array, coarse.labels.array)
    assert [(label.value, label.name) for label in record.labels] == [(1, "liver"), (2, "liver tumour")]
    assert record.measurements["liver"]["volume_ml"] == pytest.approx(coarse.truth.labels["liver"].volume_ml, rel=0.05)
    # A SEG made of the labels refers to the very series that the reader's job has.
    uids = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files}
    assert uids == {instance.sop_instance_uid for instance in record.source.instances}


def test_a_reconstruction_gets_projections_and_the_truth_of_the_patient(tmp_path, coarse):
    scan = parallel(6)
    job = ensure(tmp_path, "recon", scan=scan)
    (stack,) = open_inputs(job / "recon/input", InputOptions())
    assert stack.name == "projections.mhd"
    assert stack.geometry.angles == pytest.approx(scan.angles)
    assert 4 < stack.read(0, 6).max() < 9
    assert np.array_equal(read_volume(job / "truth/liver.mhd").array, coarse.labels.array)
    assert truth_of(tmp_path, JOB, "recon") == job / "truth"


def test_the_usual_projections_are_a_helix_that_sees_the_whole_grid(tmp_path, monkeypatch):
    asked = []

    def scanning(_anatomy, scan, **_options):
        asked.append(scan)
        raise KeyboardInterrupt

    monkeypatch.setattr(job_input, "acquisition", scanning)
    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path, "recon")
    (scan,) = asked
    assert scan.is_helical
    assert scan.axial.min() < -150 < 159 < scan.axial.max()


def test_the_reader_gets_projections_where_they_are_asked_for(tmp_path):
    job = ensure(tmp_path, "dicom-reader", projections=True, scan=fan(12))
    (series,) = open_ct_pd(job / "dicom-reader/input")
    assert series.geometry.views == 12
    before = contents(job)
    ensure(tmp_path, "dicom-reader", projections=True, scan=fan(12))
    assert contents(job) == before
    # Another scan, or images, in their place: what is ours is made anew.
    ensure(tmp_path, "dicom-reader", projections=True, scan=fan(13))
    assert len(list((job / "dicom-reader/input").rglob("*.dcm"))) == 13
    ensure(tmp_path, "dicom-reader")
    assert len(list((job / "dicom-reader/input").rglob("*.dcm"))) == COARSE.shape[0]


def test_projecting_says_how_far_it_is(tmp_path):
    said = []
    ensure(tmp_path, "recon", scan=fan(8), progress=lambda share, message: said.append((share, message)))
    assert [share for share, _ in said] == sorted(share for share, _ in said)
    assert "projecting the phantom, 50 % of 8 views" in [message for _, message in said]


def test_a_second_call_touches_nothing(tmp_path):
    before = contents(ensure(tmp_path))
    messages = []
    after = contents(ensure(tmp_path, progress=lambda share, message: messages.append((share, message))))
    assert after == before
    assert messages == []


def test_progress_grows_to_the_end(tmp_path):
    shares = []
    ensure(tmp_path, progress=lambda share, _message: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_changed_generator_renews_what_it_made(tmp_path, monkeypatch):
    job = ensure(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(job_input, "generator_sha256", lambda: "of another version")
        older = contents(job / "ai-vnet")
        ensure(tmp_path)
        assert contents(job / "ai-vnet") != older
    (job / "ai-vnet" / "output").mkdir()
    (job / "ai-vnet" / "output" / "result.txt").write_text("kept")
    ensure(tmp_path, seed=1)
    assert (job / "ai-vnet" / "output" / "result.txt").read_text() == "kept"
    assert json.loads((job / "truth" / "truth.json").read_text())["seed"] == 1


@pytest.mark.parametrize("stamped", [True, False])
def test_input_of_the_users_own_is_never_touched(tmp_path, stamped):
    folder = tmp_path / JOB / "ai-vnet" / "input"
    if stamped:
        ensure(tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recon.mhd").write_text("my own volume")
    ensure(tmp_path, seed=3)
    assert (folder / "recon.mhd").read_text() == "my own volume"


@pytest.mark.parametrize("moment", ["making the phantom", "writing the phantom", "writing its truth"])
def test_an_interruption_leaves_nothing_and_the_next_call_makes_it(tmp_path, moment):
    def interrupt(_share: float, message: str) -> None:
        if message == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path, progress=interrupt)
    assert [path.name for path in (tmp_path / JOB).iterdir()] == [".test-data.lock"]
    assert (ensure(tmp_path) / "ai-vnet" / "input" / "recon.mhd").is_file()


def die_while_writing(root: Path) -> None:
    ensure(root, progress=lambda _share, message: os._exit(9) if message == "writing its truth" else None)


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=die_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert list((tmp_path / JOB).glob(".unfinished-*"))
    job = ensure(tmp_path)
    assert not list(job.glob(".unfinished-*"))
    assert read_volume(job / "ai-vnet" / "input" / "recon.mhd").geometry.is_close(COARSE)


def test_two_processes_at_once_make_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ensure, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    job = tmp_path / JOB
    assert sorted(path.name for path in job.iterdir()) == [".test-data.lock", "ai-vnet", "truth"]
    before = contents(job)
    assert contents(ensure(tmp_path)) == before


@pytest.mark.parametrize(
    ("job_id", "stage"),
    [
        ("../../etc", "ai-vnet"),
        ("123", "ai-vnet"),
        (JOB, "../escape"),
        (JOB, "Upper"),
        (JOB, ""),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_no_trace(tmp_path, job_id, stage):
    with pytest.raises(UsageError):
        ensure_test_data(tmp_path / "test-data", job_id, stage)
    assert not (tmp_path / "test-data").exists()


def test_there_is_no_truth_for_an_input_that_somebody_changed(tmp_path: Path) -> None:
    job = ensure(tmp_path)
    assert truth_of(tmp_path, JOB, "ai-vnet") == job / "truth"
    (job / "ai-vnet/input/recon.mhd").write_text("my own")
    assert truth_of(tmp_path, JOB, "ai-vnet") is None
    assert truth_of(tmp_path, JOB, "dicom-reader") is None
    assert origin_of(tmp_path, JOB, "ai-vnet") is Origin.CHANGED
    assert origin_of(tmp_path, JOB, "dicom-reader") is Origin.FOREIGN


def without_hashes(stamp: Path) -> None:
    """Turn a stamp into one of an earlier version."""
    content = json.loads(stamp.read_text())
    del content["sha256"]
    stamp.write_text(json.dumps(content))


def test_a_copy_is_no_change(tmp_path, monkeypatch):
    ensure(tmp_path / "made")
    shutil.copytree(tmp_path / "made", tmp_path / "copy", copy_function=shutil.copyfile)
    job = tmp_path / "copy" / JOB
    assert truth_of(tmp_path / "copy", JOB, "ai-vnet") == job / "truth"
    # And one that is out of date is made again, as what was made here.
    monkeypatch.setattr(job_input, "generator_sha256", lambda: "of another version")
    before = contents(job / "ai-vnet/input")
    ensure(tmp_path / "copy")
    assert contents(job / "ai-vnet/input") != before
    assert truth_of(tmp_path / "copy", JOB, "ai-vnet") == job / "truth"


def test_what_has_its_size_and_time_is_not_read(tmp_path, monkeypatch):
    read = []
    job = ensure(tmp_path)
    monkeypatch.setattr(job_input, "sha256_of", lambda path: read.append(path.name))
    ensure(tmp_path)
    assert truth_of(tmp_path, JOB, "ai-vnet") is not None
    assert read == []
    os.utime(job / "ai-vnet/input/recon.raw")
    assert truth_of(tmp_path, JOB, "ai-vnet") is None
    assert read == ["recon.raw"]


@pytest.mark.parametrize("damage", ["a byte", "a file less", "a file more", "the stamp", "a stamp that is a list"])
def test_damage_is_told_from_what_is_the_user_s_own(tmp_path, damage):
    stage = ensure(tmp_path) / "ai-vnet"
    raw = stage / "input/recon.raw"
    if damage == "a byte":
        raw.write_bytes(b"\x01" + raw.read_bytes()[1:])
    elif damage == "a file less":
        raw.unlink()
    elif damage == "a file more":
        (stage / "input/more").touch()
    else:
        (stage / "input.stamp.json").write_text("[]" if damage.endswith("list") else "{")
    before = contents(stage)
    assert origin_of(tmp_path, JOB, "ai-vnet") is Origin.CHANGED
    ensure(tmp_path, seed=1)
    assert contents(stage) == before


def test_a_stamp_of_an_earlier_version_has_no_hashes(tmp_path):
    stage = ensure(tmp_path) / "ai-vnet"
    without_hashes(stage / "input.stamp.json")
    assert origin_of(tmp_path, JOB, "ai-vnet") is Origin.OURS
    os.utime(stage / "input/recon.raw")
    assert origin_of(tmp_path, JOB, "ai-vnet") is Origin.CHANGED

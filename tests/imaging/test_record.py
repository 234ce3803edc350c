"""The record beside a volume comes back as it was written; a broken one is refused without quoting it."""

from __future__ import annotations

import json
import traceback

import pytest

from clara_wf.imaging.record import (
    Algorithm,
    Code,
    Label,
    SourceInstance,
    SourceSeries,
    Step,
    Verdict,
    VolumeRecord,
    read_record,
    write_record,
)
from clara_wf.model.errors import VolumeError

SECRET = "MARKERNAME^ONE"
LIVER = Label(
    value=1,
    name="liver",
    category=Code(value="85756007", scheme="SCT", meaning="Tissue"),
    type=Code(value="10200004", scheme="SCT", meaning="Liver"),
    color=(1, 2, 3),
)


@pytest.fixture
def record() -> VolumeRecord:
    return VolumeRecord(
        kind="labels",
        modality="CT",
        source=SourceSeries(
            study_uid="1.2",
            series_uid="1.3",
            frame_of_reference_uid="",
            instances=(SourceInstance(sop_class_uid="1.4", sop_instance_uid="1.5", frame=2),),
            dataset={"00100010": {"vr": "PN", "Value": [{"Alphabetic": SECRET}]}},
        ),
        labels=(LIVER,),
        verdict=Verdict(status="review", reasons=("It is small.",)),
        algorithm=Algorithm(name="n", version="1", model="m", sha256="0"),
        measurements={"liver": {"volume_ml": 1.5}},
        provenance=(Step(stage="s", version="1", started="a", ended="b", detail={"x": 1.0}),),
    )


@pytest.mark.parametrize("position", [[1.5, -2, 3], None])
def test_the_place_of_a_source_image(tmp_path, record, position):
    """Optional: records of old have none."""
    content = record.to_json()
    content["source"]["instances"][0]["position"] = position
    content["source"].pop("digest")
    (tmp_path / "a.json").write_text(json.dumps(content))
    read = read_record(tmp_path / "a.mhd")
    assert read is not None
    assert read.source.instances[0].position == (position and tuple(position))
    write_record(tmp_path / "b.mhd", read)
    assert read_record(tmp_path / "b.mhd") == read


def test_a_record_of_old_has_no_places(tmp_path, record):
    content = record.to_json()
    del content["source"]["instances"][0]["position"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_record(tmp_path / "a.mhd") == record


def test_it_comes_back_as_it_was_written(tmp_path, record):
    for each in (record, VolumeRecord(kind="image")):
        write_record(tmp_path / "a.mhd", each)
        assert read_record(tmp_path / "a.mhd") == each
    assert read_record(tmp_path / "b.mhd") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": SECRET}, "its schema is not clara-wf/volume/1"),
        ({"kind": SECRET}, "its field kind cannot be read"),
        ({"kind": [SECRET]}, "its field kind cannot be read"),
        ({"kind": None}, "its field kind is missing"),
        ({"modality": [SECRET]}, "its field modality"),
        ({"verdict": {"status": SECRET, "reasons": []}}, "its field verdict"),
        ({"verdict": {"status": "ok", "reasons": SECRET}}, "its field verdict"),
        ({"verdict": SECRET}, "its field verdict"),
        ({"source": {SECRET: 1, "instances": []}}, "its field source"),
        ({"source": {"instances": [{SECRET: 1}]}}, "its field source"),
        ({"source": {"instances": [{"position": SECRET}]}}, "its field source"),
        ({"source": {"instances": [{"position": [1, 2]}]}}, "its field source"),
        ({"source": {"instances": [{"position": [1, 2, float("nan")]}]}}, "its field source"),
        ({"labels": [{"value": SECRET}]}, "its field labels"),
        ({"labels": SECRET}, "its field labels"),
        ({"algorithm": {SECRET: SECRET}}, "its field algorithm"),
        ({"measurements": SECRET}, "its field measurements"),
        ({"provenance": [{SECRET: 1}]}, "its field provenance"),
    ],
)
def test_a_broken_field_is_named_and_never_quoted(tmp_path, record, change, said):
    (tmp_path / "a.json").write_text(json.dumps({**record.to_json(), **change}))
    with pytest.raises(VolumeError, match=said) as caught:
        read_record(tmp_path / "a.mhd")
    assert str(caught.value).startswith("a.json is no record of a volume")
    # A log may hold the whole trace.
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"MARKERNAME^ONE"', b"MARKERNAME^ONE", b'{"\xff": 1}'])
def test_what_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(VolumeError, match=r"a\.json is no record of a volume: it is no JSON") as caught:
        read_record(tmp_path / "a.mhd")
    assert SECRET not in str(caught.value)

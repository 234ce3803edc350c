"""References to source images go by where these are in the patient, whatever a stage did to the volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from clara_wf.imaging.derivation import Origin
from clara_wf.imaging.derived_series import write_derived_series
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import Step
from clara_wf.imaging.segmentation import write_segmentation
from clara_wf.imaging.segmentation_check import check_segmentation
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import DicomError


def _flipped(volume: Volume, axis: int) -> Volume:
    """The same voxels in the same places, with an index that runs the other way."""
    grid = volume.geometry
    last = [0, 0, 0]
    last[axis] = grid.shape[axis] - 1
    axes = [tuple(-x for x in one) if number == axis else one for number, one in enumerate(grid.axes)]
    return Volume(
        geometry=replace(grid, origin=tuple(grid.index_to_world(last).tolist()), axes=tuple(axes)),
        array=np.flip(volume.array, axis),
    )


def _shifted(volume: Volume, *by: float) -> Volume:
    return Volume(
        geometry=replace(volume.geometry, origin=tuple(np.add(volume.geometry.origin, by).tolist())), array=volume.array
    )


def _transposed(volume: Volume, order: tuple[int, int, int]) -> Volume:
    grid = volume.geometry
    geometry = VolumeGeometry(
        shape=tuple(grid.shape[axis] for axis in order),
        spacing=tuple(grid.spacing[axis] for axis in order),
        origin=grid.origin,
        axes=tuple(grid.axes[axis] for axis in order),
    )
    return Volume(geometry=geometry, array=volume.array.transpose(order))


def _finer(volume: Volume) -> Volume:
    return Volume(geometry=replace(volume.geometry, spacing=(1.5, 0.7, 0.9)), array=volume.array)


#: What a stage does to 7 slices, the index of the source image of each of them, and whether pixels are in place.
_CASES = {
    "as it is": (lambda volume: volume, range(7), [True] * 7),
    "slices reversed": (lambda volume: _flipped(volume, 0), range(6, -1, -1), [True] * 7),
    "rows reversed": (lambda volume: _flipped(volume, 1), range(7), [False] * 7),
    "columns reversed": (lambda volume: _flipped(volume, 2), range(7), [False] * 7),
    "all reversed": (
        lambda volume: _flipped(_flipped(_flipped(volume, 0), 1), 2),
        range(6, -1, -1),
        [False] * 7,
    ),
    "50 mm to the left": (lambda volume: _shifted(volume, 50, 0, 0), range(7), [False] * 7),
    "two slices up": (lambda volume: _shifted(volume, 0, 0, 5), [2, 3, 4, 5, 6, None, None], [True] * 5 + [None] * 2),
    "rounding": (lambda volume: _shifted(volume, 0.05, 0.05, 0.06), range(7), [True] * 7),
    "far away": (lambda volume: _shifted(volume, 0, 0, 500), [None] * 7, [None] * 7),
    "finer slices": (_finer, [0, 1, 1, 2, 2, 3, 4], [True, *[False] * 4, True, False]),
    "rows for columns": (lambda volume: _transposed(volume, (0, 2, 1)), range(7), [False] * 7),
    "rows for slices": (lambda volume: _transposed(volume, (1, 0, 2)), [None] * 7, [None] * 7),
}


def _told(items) -> tuple[str, int | None, bool | None] | None:
    """What a Source Image Sequence says: the image, the frame, whether locations are preserved."""
    if not items:
        return None
    (item,) = items
    kept = {"YES": True, "NO": False, None: None}[item.get("SpatialLocationsPreserved")]
    return item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber"), kept


def _wanted(made, order, preserved):
    instances = [None if index is None else made.source.instances[index] for index in order]
    return [
        None if one is None else (one.sop_instance_uid, one.frame, kept)
        for one, kept in zip(instances, preserved, strict=True)
    ]


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("case", _CASES)
def test_a_segmentation_refers_by_position(tmp_path, label_volume, record, faults, case, enhanced) -> None:
    change, order, preserved = _CASES[case]
    order = list(order)
    shape = (7, 7, 13) if case == "rows for slices" else (7, 11, 13)
    volume, made = change(label_volume(shape=shape)), record(enhanced=enhanced)
    path = tmp_path / "a.dcm"
    written = write_segmentation(path, volume, made, workflow="w")
    dataset = pydicom.dcmread(path)
    found = {}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        derivation = frame.DerivationImageSequence
        told = _told(derivation[0].SourceImageSequence if derivation else [])
        found[round(float(volume.geometry.world_to_index(position)[0]))] = told
        # The claim by itself, without our indices: an image whose pixels are in place is where the frame is.
        if told is not None and told[2]:
            (image,) = [one for one in made.source.instances if (one.sop_instance_uid, one.frame) == told[:2]]
            assert np.linalg.norm(position - image.position) < 0.2
    assert [found[index] for index in range(7)] == _wanted(made, order, preserved)
    assert any("Spatial Locations Preserved is NO" in note for note in written.notes) == (False in preserved)
    assert any("refer to none" in note for note in written.notes) == (None in preserved)
    assert faults(path) == []


@pytest.mark.parametrize("case", _CASES)
def test_a_derived_series_refers_by_position(tmp_path, label_volume, record, faults, case) -> None:
    change, order, preserved = _CASES[case]
    order = list(order)
    shape = (7, 7, 13) if case == "rows for slices" else (7, 11, 13)
    made = record(labels=0)
    written = write_derived_series(tmp_path, change(label_volume(shape=shape)), made, workflow="w")
    images = [pydicom.dcmread(item.path) for item in written.objects]
    assert [_told(image.get("SourceImageSequence")) for image in images] == _wanted(made, order, preserved)
    assert faults(written.objects[0].path) == []


def test_a_declared_resampling_claims_nothing(tmp_path, label_volume, record) -> None:
    step = Step(stage="dicom-reader", version="0", started="", ended="", detail={"resampled": "tilt"})
    for placed in ("axial", None):
        made = record(provenance=(step,), placed=placed)
        origin = Origin.of(made, label_volume(), "a.mhd")
        assert [(found.instance, found.preserved) for found in origin.slices] == [
            (one, False) for one in made.source.instances
        ]
        assert origin.notes == ()


def test_a_record_of_old_claims_nothing(tmp_path, label_volume, record, faults) -> None:
    """It says nothing of where its images are, so nothing can be known of their pixels."""
    path = tmp_path / "a.dcm"
    made = record(placed=None)
    written = write_segmentation(path, label_volume(), made, workflow="w")
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    told = [_told(frame.DerivationImageSequence[0].SourceImageSequence) for frame in frames]
    assert sorted(told) == _wanted(made, range(7), [None] * 7)
    assert "the record does not say where the source images are" in written.notes[0]
    assert faults(path) == []


def test_a_size_that_differs_is_no_pixel_in_place(label_volume, record) -> None:
    made = record()
    size = {"00280010": {"vr": "US", "Value": [11]}, "00280011": {"vr": "US", "Value": [13]}}
    for columns, kept in ((13, True), (12, False)):
        cropped = label_volume(shape=(7, 11, columns))
        sized = replace(made, source=replace(made.source, dataset=made.source.dataset | size))
        assert {found.preserved for found in Origin.of(sized, cropped, "a.mhd").slices} == {kept}


@pytest.mark.parametrize("value", [[1, 0, 0], ["x"] * 6, [0] * 6, [1, 0, 0, 1, 0, 0], None])
def test_an_orientation_that_is_none_claims_nothing(label_volume, record, value) -> None:
    made = record()
    broken = made.source.dataset | {"00200037": {"vr": "DS", "Value": value}}
    made = replace(made, source=replace(made.source, dataset=broken))
    assert {found.preserved for found in Origin.of(made, label_volume(), "a.mhd").slices} == {None}


def test_a_claim_that_is_wrong_is_found(tmp_path, label_volume, record) -> None:
    """By the check after writing, which goes by where the images are."""
    volume, made = _flipped(label_volume(), 1), record()
    path = tmp_path / "a.dcm"
    write_segmentation(path, volume, made, workflow="w")
    check_segmentation(path, volume, made)
    dataset = pydicom.dcmread(path)
    frame = dataset.PerFrameFunctionalGroupsSequence[2]
    frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "YES"
    dataset.save_as(path)
    with pytest.raises(DicomError, match="frame 3 says that the pixels of its source image are where its own are"):
        check_segmentation(path, volume, made)

"""What a record says of its source images' places, so that a writer refers to the right ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from clara_wf.imaging.derivation import Origin
from clara_wf.imaging.derived_series import write_derived_series


def _item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _enhanced(folder, places: list[float]) -> Dataset:
    """An enhanced image, whose orientation, spacing and thickness stand in functional groups alone."""
    planes = np.array([np.full((5, 6), k, "<u2") for k in range(len(places))])
    away = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
    image = folder.image(planes, SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(places), **dict.fromkeys(away))
    image.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(PixelSpacing=[0.75, 0.5], SliceThickness=4)],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])],
            PixelValueTransformationSequence=[_item(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")],
        )
    ]
    image.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=[-10, y, 20])]) for y in places
    ]
    return image


def _claims(result) -> list[tuple[tuple[float, ...] | None, bool | None]]:
    origin = Origin.of(result.record(), result.volume(), "a.mhd")
    return [(found.instance and found.instance.position, found.preserved) for found in origin.slices]


def test_single_images(folder, read) -> None:
    folder.add_slices([5, 0, 2.5])
    assert _claims(read()) == [((-10, 20, z), True) for z in (0, 2.5, 5)]


def test_frames(folder, read, tmp_path) -> None:
    folder.save("x", _enhanced(folder, [5, 0, 2.5]))
    result = read()
    claims = _claims(result)
    assert sorted(claims) == [((-10, y, 20), True) for y in (0, 2.5, 5)]
    assert [place for place, _ in claims] == [
        tuple(result.volume().geometry.index_to_world((k, 0, 0))) for k in range(3)
    ]
    written = write_derived_series(tmp_path, result.volume(), result.record(), workflow="w")
    assert pydicom.dcmread(written.objects[0].path).SliceThickness == 4


def test_places_of_few_decimals_are_still_those_of_the_slices(folder, read) -> None:
    """What the gate lets pass as a regular grid, the writer takes for the same places."""
    folder.add_slices([round(k * 1.25, 1) for k in range(20)])
    assert {kept for _, kept in _claims(read())} == {True}


@pytest.mark.parametrize("angle", [0.0, 0.2])
def test_directions_of_few_decimals(folder, read, angle) -> None:
    down, right = round(float(np.cos(angle)), 4), round(float(np.sin(angle)), 4)
    folder.add_slices([0, 2.5, 5], ImageOrientationPatient=[down, right, 0, -right, down, 0])
    assert {kept for _, kept in _claims(read())} == {True}


def test_a_tilted_gantry(folder, read) -> None:
    for k in range(4):
        folder.add(str(k), ImagePositionPatient=[-10, 20 + 0.5 * k, 2.5 * k])
    result = read(resample=True)
    assert _claims(result) == [((-10, 20 + 0.5 * k, 2.5 * k), False) for k in range(4)]
    # Without the declaration the voxels are elsewhere all the same.
    record = replace(result.record(), provenance=())
    kept = [found.preserved for found in Origin.of(record, result.volume(), "a.mhd").slices]
    assert kept == [False] * 4

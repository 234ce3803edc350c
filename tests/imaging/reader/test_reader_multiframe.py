"""Enhanced multi-frame images: every frame has its own place and scale."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, RLELossless

from clara_wf.model.errors import DicomError


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(folder, places: list[float], *, shared_scale: bool = False, times: list[int] | None = None, **changes):
    planes = np.array([np.full((5, 6), 10 * k, "<u2") for k in range(len(places))])
    image = folder.image(
        planes,
        SOPClassUID=EnhancedCTImageStorage,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        NumberOfFrames=len(places),
        **changes,
    )
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    if shared_scale:
        shared.PixelValueTransformationSequence = [item(RescaleSlope=2, RescaleIntercept=-1000)]
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k, z in enumerate(places):
        group = item(PlanePositionSequence=[item(ImagePositionPatient=[-10, 20, z])])
        if not shared_scale:
            group.PixelValueTransformationSequence = [item(RescaleSlope=1, RescaleIntercept=-k)]
        if times:
            group.FrameContentSequence = [item(TemporalPositionIndex=times[k])]
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = groups
    return image


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_are_sorted_and_scaled_each(folder, read, modality, compressed):
    image = enhanced(folder, [5.0, 0.0, 2.5], Modality=modality)
    if modality == "MR":
        image.SOPClassUID = EnhancedMRImageStorage
    path = folder.save("x", image, ExplicitVRLittleEndian)
    if compressed:
        image.compress(RLELossless, generate_instance_uid=False)
        image.save_as(path)
    result = read()
    volume = result.volume()
    assert volume.array[:, 2, 3].tolist() == [10 - 1, 20 - 2, 0]
    assert volume.geometry.origin == (-10, 20, 0)
    assert volume.geometry.spacing == (2.5, 0.75, 0.5)
    source = result.record().source
    assert [instance.frame for instance in source.instances] == [2, 3, 1]
    assert result.content["counts"] == {"files": 1, "read": 1}


def test_a_scale_for_all_frames(folder, read):
    folder.save("x", enhanced(folder, [0.0, 1.0], shared_scale=True))
    assert read().volume().array[:, 0, 0].tolist() == [-1000, -980]


def test_times_of_one_file_are_split(folder, read):
    folder.save("x", enhanced(folder, [0.0, 1.0, 0.0, 1.0], shared_scale=True, times=[2, 2, 1, 1]))
    result = read()
    assert result.volume().array[:, 0, 0].tolist() == [-960, -940]
    assert result.volume("1.2.840.99.2_2.mhd").array[:, 0, 0].tolist() == [-1000, -980]


def test_frames_without_places(folder, refuse):
    image = enhanced(folder, [0.0, 1.0])
    del image.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    folder.save("x", image)
    refuse(DicomError, "where frame 2 is in the patient is not known")


def test_the_number_of_frames_lies(folder, refuse):
    image = enhanced(folder, [0.0, 1.0, 2.0])
    del image.PerFrameFunctionalGroupsSequence[2]
    folder.save("x", image)
    refuse(DicomError, "NumberOfFrames is 3, but it tells of the places of 2 frames")


def test_many_frames_of_an_old_kind(folder, refuse):
    folder.save("x", folder.image(np.zeros((3, 5, 6), "<u2"), NumberOfFrames=3))
    refuse(DicomError, "it has 3 frames, but does not say where each of them is")


def without_macros(image: Dataset, frames: list[int]) -> Dataset:
    for k in frames:
        del image.PerFrameFunctionalGroupsSequence[k].PixelValueTransformationSequence
    return image


def test_a_rescale_that_stands_where_a_single_frame_has_it(folder, read):
    """Enhanced CT of a converter: the macro is nowhere, the data set has the attributes."""
    image = without_macros(enhanced(folder, [0.0, 1.0, 2.0]), [0, 1, 2])
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
    folder.save("x", image)
    result = read()
    assert result.volume().array[:, 0, 0].tolist() == [-1024, -1014, -1004]
    assert result.record().units == "HU"
    assert result.content["series"][0]["volumes"][0]["notes"] == []


def test_a_rescale_that_is_nowhere_is_noted(folder, read):
    folder.save("x", without_macros(enhanced(folder, [0.0, 1.0, 2.0]), [0, 1, 2]))
    result = read()
    assert result.volume().array[:, 0, 0].tolist() == [0, 10, 20]
    (note,) = result.content["series"][0]["volumes"][0]["notes"]
    assert note == "RescaleIntercept is missing: its stored values are taken as they are"
    assert note in result.record().provenance[0].detail["notes"]


@pytest.mark.parametrize("beside", [False, True])
def test_a_frame_without_rescale_among_others(folder, refuse, beside):
    image = without_macros(enhanced(folder, [0.0, 1.0, 2.0]), [1])
    if beside:  # whether it is meant for that frame, nobody knows
        image.RescaleSlope, image.RescaleIntercept = 1, 0
    folder.save("x", image)
    refuse(DicomError, "some of its images have a RescaleIntercept and others have none")


def test_units_stand_with_the_frames(folder, read):
    image = enhanced(folder, [0.0, 1.0], shared_scale=True)
    image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleType = "Z_EFF"
    image.add_new("PixelPaddingValue", "US", 10)
    folder.save("x", image)
    result = read()
    assert result.record().units == "Z_EFF"
    assert result.volume().array[:, 0, 0].tolist() == [-1000, -980]  # padding has no value of air in such units


@pytest.mark.parametrize(
    ("sequence", "changes", "name"),
    [
        ("PlanePositionSequence", {"ImagePositionPatient": [-10, 20, float("nan")]}, "ImagePositionPatient"),
        ("PlanePositionSequence", {"ImagePositionPatient": [float("inf"), 20, 0]}, "ImagePositionPatient"),
        (
            "PlaneOrientationSequence",
            {"ImageOrientationPatient": [1, 0, 0, 0, float("nan"), 0]},
            "ImageOrientationPatient",
        ),
        ("PixelMeasuresSequence", {"PixelSpacing": [0.75, float("nan")]}, "PixelSpacing"),
        ("PixelValueTransformationSequence", {"RescaleSlope": float("nan"), "RescaleIntercept": 0}, "RescaleSlope"),
    ],
)
def test_a_number_of_a_frame_that_is_not_finite(folder, read, sequence, changes, name):
    folder.add_slices([0.0, 2.5, 5.0])
    image = enhanced(folder, [0.0, 1.0, 2.0], SeriesInstanceUID="1.5")
    setattr(image.PerFrameFunctionalGroupsSequence[1], sequence, [item(**changes)])
    folder.save("x", image)
    result = read()
    assert result.names == ["1.2.840.99.2.mhd"]
    assert result.states["x"] == "refused"
    assert result.reasons["x"] == f"{name} of a frame holds a number that is not finite"


def test_a_file_without_a_preamble(folder, read):
    folder.add_slices([0.0, 2.5, 5.0])
    path = folder.save("x", enhanced(folder, [0.0, 1.0], shared_scale=True, SeriesInstanceUID="1.5"))
    path.write_bytes(path.read_bytes()[132:])
    assert read().volume("1.5.mhd").array[:, 0, 0].tolist() == [-1000, -980]

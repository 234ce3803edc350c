"""Stored values become the right real values, in every encoding."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from clara_wf.model.errors import DicomError

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_every_native_encoding_gives_the_same_volume(folder, read, syntax, dtype):
    planes = [np.arange(30, dtype=dtype).reshape(5, 6) * 7 + k - (100 if dtype == "<i2" else 0) for k in range(3)]
    for k, plane in enumerate(planes):
        image = folder.image(plane, ImagePositionPatient=[0, 0, 10.0 * k])
        if syntax == ExplicitVRBigEndian:
            image.PixelData = plane.byteswap().tobytes()
        folder.save(f"{k}", image, syntax)
    array = read().volume().array
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, np.array(planes).astype(int) - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_every_compressed_encoding_gives_the_same_volume(folder, read, syntax, dtype):
    planes = [np.arange(1024, dtype=dtype).reshape(32, 32) + k for k in range(2)]
    for k, plane in enumerate(planes):
        image = folder.image(plane, ImagePositionPatient=[0, 0, 10.0 * k], BitsStored=12)
        folder.save(f"{k}", image)
        image.compress(syntax, generate_instance_uid=False)
        image.save_as(folder.path / f"{k}")
    np.testing.assert_array_equal(read().volume().array, np.array(planes).astype(int) - 1024)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_mean_nothing(folder, read, signed):
    values = np.array([[-2048, -1, 0, 1, 2047, 5]] * 5) if signed else np.array([[0, 1, 2047, 2048, 4095, 5]] * 5)
    dirty = ((values & 0xFFF) | 0xA000).astype("<u2")
    folder.add("1", dirty.view("<i2") if signed else dirty, BitsStored=12, RescaleIntercept=0)
    np.testing.assert_array_equal(read().volume().array[0], values)


def test_bits_that_do_not_begin_at_the_lowest(folder, read):
    values = np.arange(30).reshape(5, 6) * 100
    folder.add("1", ((values << 4) | 0x7).astype("<u2"), BitsStored=12, HighBit=15, RescaleIntercept=0)
    np.testing.assert_array_equal(read().volume().array[0], values)


def test_a_slope_of_its_own_for_each_slice_gives_floats(folder, read):
    plane = np.full((5, 6), 10, "<u2")
    folder.add("1", plane, RescaleSlope="0.5", RescaleIntercept=0, ImagePositionPatient=[0, 0, 0])
    folder.add("2", plane, RescaleSlope="2.25", RescaleIntercept=-1, ImagePositionPatient=[0, 0, 1])
    array = read().volume().array
    assert array.dtype == np.float32
    assert (array[0] == 5).all()
    assert (array[1] == 21.5).all()


def test_whole_slopes_stay_int16_while_they_fit(folder, read):
    folder.add("1", np.full((5, 6), 16000, "<u2"), RescaleSlope=2, RescaleIntercept=7)
    array = read().volume().array
    assert array.dtype == np.int16
    assert (array == 32007).all()


@pytest.mark.parametrize(("value", "intercept", "dtype"), [(33791, -1024, "int16"), (33792, -1024, "float32")])
def test_values_beyond_int16_give_floats(folder, read, value, intercept, dtype):
    folder.add("1", np.full((5, 6), value, "<u2"), RescaleIntercept=intercept)
    array = read().volume().array
    assert array.dtype == np.dtype(dtype)
    assert (array == value + intercept).all()


def test_an_absurd_slope_is_no_crash(folder, read):
    folder.add("1", np.full((5, 6), 1, "<u2"), RescaleSlope="1e30", RescaleIntercept=0)
    assert read().volume().array[0, 0, 0] == np.float32(1e30)


def test_missing_rescale_is_none(folder, read):
    folder.add("1", np.full((5, 6), 77, "<u2"), RescaleIntercept=None, RescaleSlope=None)
    assert (read().volume().array == 77).all()


@pytest.mark.parametrize(
    ("stored", "padding", "limit", "expected"),
    [
        (np.int16(-2000), -2000, None, -1024),  # GE
        (np.uint16(63536), 63536, None, -1024),  # the same, read as unsigned
        (np.uint16(0), 0, None, -1024),  # is air already
        (np.int16(-1999), -2000, -1990, -1024),
        (np.int16(-1980), -2000, -1990, -1980 - 1024),
    ],
)
def test_padding_in_ct_becomes_air(folder, read, stored, padding, limit, expected):
    plane = np.full((5, 6), 1100, stored.dtype.newbyteorder("<"))
    plane[0, 0] = stored
    image = folder.image(plane)
    vr = "SS" if plane.dtype.kind == "i" else "US"
    image.add_new("PixelPaddingValue", vr, padding)
    if limit is not None:
        image.add_new("PixelPaddingRangeLimit", vr, limit)
    folder.save("1", image)
    array = read().volume().array
    assert array.dtype == np.int16
    assert array[0, 0, 0] == expected
    assert array[0, 0, 1] == 76


@pytest.mark.parametrize(
    ("dtype", "stored", "vr", "padding", "expected"),
    [
        ("<u2", 63536, "SS", -2000, -1024),  # GE, its signed padding kept by a program that made the pixels unsigned
        ("<i2", -2000, "US", 63536, -1024),
        ("<i2", -2000, "SS", -2000, -1024),
        ("u1", 255, "SS", -1, -1024),
        ("<i4", -2000, "SS", -2000, -1024),
        ("<u2", 2000, "SS", -2000, 2000 - 1024),
    ],
)
def test_padding_means_the_bits_whatever_its_vr(folder, read, dtype, stored, vr, padding, expected):
    plane = np.full((5, 6), 100, dtype)
    plane[0, 0] = stored
    image = folder.image(plane)
    image.add_new("PixelPaddingValue", vr, padding)
    folder.save("1", image)
    array = read().volume().array
    assert array.dtype == np.int16
    assert (array[0, 0, 0], array[0, 0, 1]) == (expected, 100 - 1024)


def test_a_range_of_padding_about_zero_is_none_of_unsigned_pixels(folder, refuse):
    image = folder.image()
    image.add_new("PixelPaddingValue", "SS", -2000)
    image.add_new("PixelPaddingRangeLimit", "SS", 0)
    folder.save("1", image)
    refuse(DicomError, "PixelPaddingValue or PixelPaddingRangeLimit is negative, the other is not")


def test_slices_in_different_units(folder, refuse):
    for number, units in enumerate(["HU", "Z_EFF", "HU"]):
        folder.add(f"{number}", ImagePositionPatient=[0, 0, number], RescaleType=units)
    _, result = refuse(DicomError, r"its slices are in different units \(RescaleType\)")
    assert result.content["counts"] == {"files": 3, "refused": 3}


def test_stacks_may_have_units_of_their_own(folder, read):
    """Magnitude and phase of an MR series: at the same places, told apart by their ImageType."""
    for number, (kind, units) in enumerate([("M", "normalized"), ("P", "milliradials")] * 2):
        changes = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", kind], "RescaleType": units}
        folder.add(f"{number}", ImagePositionPatient=[0, 0, number // 2], **changes)
    result = read()
    assert [result.record(name).units for name in result.names] == ["normalized", "milliradials"]


@pytest.mark.parametrize(("units", "expected"), [(None, "HU"), ("HU", "HU"), ("US", ""), ("Z_EFF", "Z_EFF")])
def test_units_of_ct(folder, read, units, expected):
    folder.add_slices([0, 1], **({"RescaleType": units} if units else {}))
    assert read().record().units == expected


def test_a_slice_without_slope_among_others(folder, refuse):
    folder.add_slices([0, 1, 2], RescaleSlope=2)
    folder.add("other", ImagePositionPatient=[-10, 20, 3], RescaleSlope=None)
    refuse(DicomError, "some of its images have a RescaleSlope and others have none")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"RescaleSlope": None}, "RescaleSlope is missing: it is taken as 1"),
        (
            {"RescaleIntercept": None},
            "RescaleIntercept is missing: its stored values are taken with RescaleSlope alone",
        ),
        (
            {"RescaleIntercept": None, "RescaleSlope": None},
            "RescaleIntercept is missing: its stored values are taken as they are",
        ),
    ],
)
def test_what_is_missing_of_the_rescale_is_noted(folder, read, changes, note):
    folder.add_slices([0, 1], **changes)
    assert read().content["series"][0]["volumes"][0]["notes"] == [note]


def test_padding_elsewhere_stays(folder, read):
    image = folder.image(np.full((5, 6), 5, "<u2"), Modality="MR", RescaleIntercept=None)
    image.add_new("PixelPaddingValue", "US", 5)
    folder.save("1", image)
    assert (read().volume().array == 5).all()


def test_monochrome1_is_not_inverted(folder, read):
    plane = folder.pixels(3)
    folder.add("1", plane, PhotometricInterpretation="MONOCHROME1")
    result = read()
    np.testing.assert_array_equal(result.volume().array[0], plane.astype(int) - 1024)
    assert result.content["series"][0]["photometric"] == "MONOCHROME1"


@pytest.mark.parametrize("dtype", ["u1", "<u4", "<i4"])
def test_other_word_sizes(folder, read, dtype):
    plane = np.arange(30, dtype=dtype).reshape(5, 6)
    folder.add("1", plane, RescaleIntercept=-5)
    np.testing.assert_array_equal(read().volume().array[0], plane.astype(int) - 5)


def test_record_says_where_the_slices_come_from(folder, read):
    folder.add_slices([5.0, 0.0, 10.0], RescaleType="HU")
    record = read().record()
    assert (record.kind, record.modality, record.units) == ("image", "CT", "HU")
    assert record.source is not None
    assert [i.sop_instance_uid[-1] for i in record.source.instances] == ["2", "1", "3"]
    assert {i.sop_class_uid for i in record.source.instances} == {CTImageStorage}
    assert record.source.dataset["00100020"] == {"vr": "LO", "Value": ["MARKERID"]}
    assert record.source.dataset["00280030"] == {"vr": "DS", "Value": [0.75, 0.5]}
    step = record.provenance[0]
    assert step.stage == "dicom-reader"
    assert step.detail["orientation"] == "axial"
    assert step.detail["image_type"] == "ORIGINAL\\PRIMARY\\AXIAL"

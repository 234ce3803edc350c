"""Real images: each gives the volume it should, or a clear refusal."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.imaging.dicom_reader import read_folder
from clara_wf.imaging.metaimage import read_volume
from clara_wf.model.errors import DicomError, GeometryError


def test_nine_encodings_of_one_image_are_one_volume(shared_data, read, tmp_path):
    raws = set()
    for path in sorted((shared_data / "mr-one-image-nine-encodings").glob("*.dcm")):
        single = tmp_path / f"single-{path.stem}"
        single.mkdir()
        (single / path.name).symlink_to(path)
        result = read(single)
        (header,) = result.report.volumes
        volume = read_volume(header)
        assert volume.array.shape == (1, 384, 384)
        raws.add((header.with_suffix(".raw").read_bytes(), header.read_bytes()))
    assert len(raws) == 1


def test_nine_images_at_one_place_are_refused(shared_data, tmp_path):
    with pytest.raises(GeometryError, match="are both at"):
        read_folder(shared_data / "mr-one-image-nine-encodings", tmp_path)


def test_axial_slices_and_coronal_reformats(shared_data, read):
    result = read(shared_data / "ct-abdomen-siemens")
    axial, coronal = sorted(result.content["series"], key=lambda series: -series["files"]["read"])
    assert axial["volumes"][0]["shape"] == [49, 512, 512]
    assert axial["volumes"][0]["orientation"] == "axial"
    assert axial["volumes"][0]["spacing_mm"] == [4.0, 1.3671875, 1.3671875]
    assert axial["volumes"][0]["extent_mm"] == [196, 700, 700]
    assert coronal["volumes"][0]["orientation"] == "coronal"
    assert coronal["volumes"][0]["shape"] == [12, 512, 512]
    volume = result.volume(axial["volumes"][0]["name"])
    assert (volume.array.min(), volume.array.dtype) == (-1024, np.int16)
    source = result.record(axial["volumes"][0]["name"]).source
    assert len(source.instances) == 49
    assert source.frame_of_reference_uid


def test_single_and_multi_frame_files_are_one_volume(shared_data, read):
    result = read(shared_data / "seg-tiny")
    one, other = result.report.volumes
    assert result.content["counts"] == {"files": 6, "not DICOM": 1, "not an image": 1, "read": 4}
    first, second = read_volume(one), read_volume(other)
    assert first.geometry.is_close(second.geometry)
    np.testing.assert_array_equal(first.array, second.array)


def test_several_patients(shared_data, tmp_path):
    with pytest.raises(DicomError, match="images of 4 patients"):
        read_folder(shared_data, tmp_path)

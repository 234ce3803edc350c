"""The real networks on the phantom, whose truth is known, and on real patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.segment import Segmenter
from clara_wf.phantom.patient import make_phantom

pytestmark = [pytest.mark.slow, pytest.mark.network]


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def read_axial(folder: Path) -> Volume:
    """Read the axial slices of a folder, plainly: this is about the network, not the reader."""
    images = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    images = [image for image in images if np.allclose(image.ImageOrientationPatient, [1, 0, 0, 0, 1, 0])]
    images.sort(key=lambda image: image.ImagePositionPatient[2])
    heights = [float(image.ImagePositionPatient[2]) for image in images]
    array = np.stack([image.pixel_array * image.RescaleSlope + image.RescaleIntercept for image in images])
    rows, columns = (float(value) for value in images[0].PixelSpacing)
    return Volume(
        geometry=VolumeGeometry(
            shape=array.shape,
            spacing=(float(np.diff(heights).mean()), rows, columns),
            origin=tuple(float(value) for value in images[0].ImagePositionPatient),
        ),
        array=array.astype(np.int16),
    )


@pytest.fixture(scope="module")
def phantom():
    return make_phantom()


@pytest.fixture(scope="module")
def cascade(models, phantom):
    """What both networks find in the phantom; the first is the liver network, so one run shows both."""
    out = np.empty(phantom.image.array.shape, np.uint8)
    return out, Segmenter(models, "liver-lesion").segment(phantom.image, out)


def test_the_phantom_s_liver(phantom, cascade):
    out, result = cascade
    truth = phantom.truth.labels["liver"]
    assert dice(out > 0, phantom.labels.array > 0) >= 0.94
    assert result.verdict.status == "ok"
    measured = sum(result.measurements[name]["volume_ml"] for name in ("liver", "liver tumour"))
    assert measured == pytest.approx(truth.volume_ml, rel=0.1)
    assert np.allclose(result.measurements["liver"]["centroid_mm"], truth.centroid_mm, atol=6)


def test_the_phantom_s_tumours(phantom, cascade):
    out, result = cascade
    assert dice(out == 2, phantom.labels.array == 2) >= 0.75
    assert result.measurements["liver tumour"]["mean_hu"] == pytest.approx(
        phantom.truth.labels["liver tumour"].mean_hu, abs=20
    )
    assert [label.value for label in result.labels] == [1, 2]


@pytest.fixture(scope="module")
def liver(models):
    return Segmenter(models, "liver")


def test_a_real_abdomen(liver, shared_data):
    volume = read_axial(shared_data / "ct-abdomen-siemens")
    out = np.empty(volume.array.shape, np.uint8)
    result = liver.segment(volume, out)
    assert result.verdict.status == "review"
    assert result.verdict.reasons == (
        "the liver reaches the edge of the volume (its lowest slice): what is beyond it is not measured",
    )
    assert result.measurements["liver"]["volume_ml"] == pytest.approx(1000, rel=0.1)
    # In this patient the liver is to the right of the spine, and reaches the lowest slice.
    assert result.measurements["liver"]["centroid_mm"][0] < -40
    assert out[0].any()


def test_a_real_head_has_no_liver(liver, shared_data):
    volume = read_axial(shared_data / "ct-head-small")
    out = np.empty(volume.array.shape, np.uint8)
    result = liver.segment(volume, out)
    assert result.verdict.status == "none"
    assert not out.any()


@pytest.mark.parametrize("arguments", [{"region": "pelvis"}, {"organs": False}])
def test_a_phantom_without_a_liver(liver, arguments):
    image = make_phantom(**arguments).image
    out = np.empty(image.array.shape, np.uint8)
    result = liver.segment(image, out)
    assert result.verdict.status == "none", result.measurements
    assert not out.any()

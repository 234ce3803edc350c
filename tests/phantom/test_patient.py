from __future__ import annotations

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import UsageError
from clara_wf.phantom.parts import Tissue
from clara_wf.phantom.patient import EVERYDAY, MARKERS, make_anatomy, make_phantom
from clara_wf.phantom.render import Scanner

from .beads import bead_centres
from .conftest import COARSE, GRIDS


@pytest.mark.parametrize("name", GRIDS)
def test_beads_are_found_at_their_millimetres(name, everyday):
    geometry = GRIDS[name]
    image = everyday.image if geometry is EVERYDAY else make_phantom(geometry, lesions=0).image
    found = bead_centres(image)
    for marker in MARKERS:
        distances = np.linalg.norm(found - marker.centre, axis=1)
        assert distances.min() < min(geometry.spacing) / 2, marker.name
    assert len(found) == len(MARKERS)


def test_no_flip_or_swap_of_axes_maps_the_beads_onto_themselves():
    beads = np.array([marker.centre for marker in MARKERS])
    for axis in range(3):
        flipped = beads.copy()
        flipped[:, axis] *= -1
        assert np.linalg.norm(flipped[:, None] - beads[None], axis=2).min(axis=1).max() > 20
    swapped = beads[:, [1, 0, 2]]
    assert np.linalg.norm(swapped[:, None] - beads[None], axis=2).min(axis=1).max() > 20


def test_organs_lie_on_their_own_sides(everyday):
    where = {name: region.centroid_mm for name, region in everyday.truth.labels.items()}
    right, left = -1, 1  # LPS: x grows to the patient's left, y to the back, z to the head
    for organ, side in (("liver", right), ("gallbladder", right), ("kidney right", right), ("vena cava", right)):
        assert where[organ][0] * side > 10, organ
    for organ, side in (("spleen", left), ("stomach", left), ("kidney left", left), ("aorta", left), ("heart", left)):
        assert where[organ][0] * side > 5, organ
    assert where["bone"][1] > 20
    assert where["gallbladder"][1] < -20
    assert where["lung"][2] > where["liver"][2] > where["bowel"][2]


@pytest.mark.parametrize(
    ("tissue", "hu", "tolerance"),
    [
        (Tissue.LIVER, 110, 5),  # with its vessels
        (Tissue.LIVER_TUMOUR, 60, 12),
        (Tissue.SPLEEN, 118, 5),
        (Tissue.AORTA, 165, 4),
        (Tissue.LUNG, -860, 12),
        (Tissue.FAT, -100, 6),
        (Tissue.MUSCLE, 58, 4),
    ],
)
def test_organs_have_their_density_away_from_their_borders(everyday, tissue, hu, tolerance):
    inside = everyday.tissues.array == tissue
    inner = inside.copy()
    for axis in range(3):
        for step in (-1, 1):
            inner &= np.roll(inside, step, axis)
    values = everyday.image.array[inner]
    assert values.size > 300
    assert float(np.median(values)) == pytest.approx(hu, abs=tolerance)


def test_noise_has_the_deviation_asked_for_and_none_is_none():
    noisy = make_phantom(COARSE, scanner=Scanner(noise=12.0)).image.array.astype(float)
    silent = make_phantom(COARSE, scanner=Scanner(noise=0.0)).image.array.astype(float)
    air = silent == -1000
    liver = make_phantom(COARSE).labels.array == 1
    assert np.std((noisy - silent)[liver]) == pytest.approx(12, rel=0.05)
    assert air.mean() > 0.2


def test_the_same_seed_gives_the_same_bytes_and_another_a_different_patient(coarse):
    again, other = make_phantom(COARSE), make_phantom(COARSE, seed=1)
    assert again.image.array.tobytes() == coarse.image.array.tobytes()
    assert again.tissues.array.tobytes() == coarse.tissues.array.tobytes()
    assert again.truth == coarse.truth
    assert other.truth.labels["liver"] != coarse.truth.labels["liver"]
    assert other.image.array.tobytes() != coarse.image.array.tobytes()


def test_slabs_leave_no_seams():
    silent = Scanner(noise=0.0)
    whole = make_phantom(COARSE, scanner=silent)
    part = make_phantom(COARSE.cropped((13, 0, 0), (39, 96, 96)), scanner=silent)
    assert np.abs(part.image.array - whole.image.array[13:39]).max() <= 1
    assert np.mean(part.tissues.array != whole.tissues.array[13:39]) < 1e-5


def test_the_truth_does_not_depend_on_the_grid(everyday):
    fine, rough = everyday.truth.labels, make_phantom(GRIDS["oblique"]).truth.labels
    for organ in ("liver", "spleen", "kidney left"):
        assert rough[organ].volume_ml == pytest.approx(fine[organ].volume_ml, rel=0.01)
        assert rough[organ].centroid_mm == pytest.approx(fine[organ].centroid_mm, abs=0.4)
    assert 1200 < fine["liver"].volume_ml < 2000
    assert 5 < fine["liver tumour"].volume_ml < 60


def test_truth_and_labels_agree(everyday):
    labels, geometry = everyday.labels.array, everyday.labels.geometry
    assert set(np.unique(labels)) == {0, 1, 2}
    mask = labels > 0
    liver = everyday.truth.labels["liver"]
    assert liver.volume_ml == pytest.approx(np.count_nonzero(mask) * 1.5 * 1.5 * 3 / 1000)
    assert liver.centroid_mm == pytest.approx(geometry.index_to_world(np.argwhere(mask).mean(axis=0)), abs=1e-6)
    assert liver.mean_hu == pytest.approx(everyday.image.array[mask].mean(dtype=float))


def test_densities_fit_twelve_bits(everyday):
    assert everyday.image.array.dtype == np.int16
    assert everyday.image.array.min() >= -1024
    assert everyday.image.array.max() <= 3071


@pytest.mark.parametrize("arguments", [{"region": "pelvis"}, {"organs": False}])
def test_negative_cases_have_a_body_but_no_liver(arguments):
    phantom = make_phantom(COARSE, **arguments)
    assert not phantom.labels.array.any()
    assert "liver" not in phantom.truth.labels
    assert "liver tumour" not in phantom.truth.labels
    assert phantom.truth.labels["fat"].volume_ml > 3000
    assert phantom.truth.labels["bone"].volume_ml > 200
    assert ("lung" in phantom.truth.labels) == (arguments.get("region") != "pelvis")


def test_a_liver_without_lesions_and_a_patient_without_beads():
    phantom = make_phantom(COARSE, lesions=0, markers=False)
    assert set(np.unique(phantom.labels.array)) == {0, 1}
    assert phantom.truth.markers == ()
    assert len(bead_centres(Volume(geometry=COARSE, array=phantom.image.array))) == 0


def test_the_number_of_lesions_is_kept():
    for count in (1, 5):
        names = [part.name for part in make_anatomy(2, lesions=count).parts]
        assert names.count("lesion") == count


def test_a_grid_of_one_voxel_beside_the_patient_is_air():
    tiny = VolumeGeometry(shape=(1, 1, 1), spacing=(1.0, 1.0, 1.0), origin=(900.0, 0.0, 0.0))
    phantom = make_phantom(tiny, scanner=Scanner(noise=0.0, blur=0.0))
    assert phantom.image.array.tolist() == [[[-1000]]]
    assert phantom.truth.labels == {}


@pytest.mark.parametrize("arguments", [{"region": "head"}, {"seed": -1}, {"lesions": -1}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(UsageError):
        make_anatomy(**arguments)

"""Slices come where they are in the patient; what makes no regular grid is refused, or resampled exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.model.errors import GeometryError


def turned(angle: float, axis: int) -> np.ndarray:
    """A rotation matrix about x, y or z."""
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


@pytest.mark.parametrize(
    "directions",
    [
        np.eye(3),  # axial
        np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T,  # coronal
        np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]).T,  # sagittal
        np.array([[-1, 0, 0], [0, 1, 0], [0, 0, -1]]).T,  # axial, seen from above
        turned(0.4, 0) @ turned(0.3, 2),  # oblique
    ],
)
def test_every_voxel_is_where_its_file_says(folder, read, directions):
    row, column, normal = directions.T
    for place in (7.5, 0.0, 5.0, 2.5):
        position = np.array([-10.0, 20, 30]) + place * normal
        plane = np.full((5, 6), int(place * 10), "<u2")
        plane[1, 2] = 999
        folder.add(
            f"{place}",
            plane,
            ImagePositionPatient=[round(x, 8) for x in position],
            ImageOrientationPatient=[round(x, 8) for x in (*row, *column)],
            RescaleIntercept=0,
        )
    volume = read().volume()
    assert [int(plane[0, 0]) for plane in volume.array] == [0, 25, 50, 75]
    where = volume.geometry.index_to_world((1, 1, 2))
    np.testing.assert_allclose(where, [-10, 20, 30] + 2.5 * normal + 0.5 * 2 * row + 0.75 * column, atol=1e-5)
    assert volume.array[1, 1, 2] == 999
    assert np.linalg.det(volume.geometry.affine[:3, :3][:, ::-1]) > 0


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (
            [-127.5, -125, -122.5, -120, -112.5, -110],
            r"slices 4 and 5 are 7.5 mm apart where 2.5 is usual: 2 are missing between z=-120.0 mm and z=-112.5 mm",
        ),
        ([0, 2.5, 5, 10], r"1 is missing between z=5.0 mm and z=10.0 mm"),
        ([0, 2.5, 5, 8.5, 11], r"slices 3 and 4 are 3.5 mm apart where 2.5 is usual, between z=5.0 mm and z=8.5 mm"),
        ([0, 1, 2.1, 3.3, 4.6, 6], r"mm apart where|drifts"),
        ([0, 2.5, 2.5, 5], r"slices 2 and 3 are both at z=2.5 mm"),
        ([0, 5, 5.2, 5.4, 5.6, 20], r"and 1 more|apart where 0.2 is usual"),
    ],
)
def test_uneven_slices_are_refused_in_millimetres(folder, refuse, places, message):
    folder.add_slices(places)
    _, result = refuse(GeometryError, message)
    assert set(result.states.values()) == {"refused"}
    assert result.content["series"][0]["state"] == "refused"


def test_many_faults_are_counted(folder, refuse):
    folder.add_slices([k * 2.5 for k in range(40) if k % 4])
    refuse(GeometryError, "and 6 more of this kind")


@pytest.mark.parametrize("decimals", [1, 3])
def test_rounded_positions_are_even(folder, read, decimals):
    places = [round(k * 2 / 3, decimals) for k in range(60)]
    folder.add_slices(places)
    geometry = read().volume().geometry
    assert geometry.spacing[0] == pytest.approx(2 / 3, abs=1e-3)


def tilted(folder, angle: float, count: int = 9, along: str = "column") -> None:
    """A linear field, scanned with a tilted gantry: each slice is shifted in its own plane."""
    for k in range(count):
        shift = 2.0 * k * math.tan(math.radians(angle))
        position = [-10 + (shift if along == "row" else 0), 20 + (shift if along == "column" else 0), 2.0 * k]
        rows, columns = np.indices((24, 20))
        x, y = position[0] + 0.5 * columns, position[1] + 0.75 * rows
        plane = 1000 + 4 * x + 6 * y + 3 * position[2]
        stored = np.rint(plane * 100).astype("<i4")
        folder.add(
            f"{k}",
            stored,
            ImagePositionPatient=[round(v, 6) for v in position],
            RescaleSlope="0.01",
            RescaleIntercept=0,
        )


@pytest.mark.parametrize("along", ["row", "column"])
@pytest.mark.parametrize("angle", [12.5, -12.5])
def test_gantry_tilt_is_refused_and_resampled_exactly(folder, refuse, read, angle, along):
    tilted(folder, angle, along=along)
    fault, _ = refuse(GeometryError, r"the gantry was tilted: the slices are sheared by 12.50 degrees, 0.4434 mm")
    assert "--resample" in str(fault)
    result = read(resample=True)
    volume = result.volume()
    world = volume.geometry.index_to_world(np.moveaxis(np.indices(volume.array.shape), 0, -1))
    z, y, x = np.moveaxis(world, -1, 0)[::-1]
    expected = 1000 + 4 * x + 6 * y + 3 * z
    inside = volume.array > -1024
    assert inside.sum() > 0.9 * 9 * 23 * 19
    np.testing.assert_allclose(volume.array[inside], expected[inside], atol=0.02)
    assert (volume.array[~inside] == -1024).all()
    described = result.content["series"][0]["volumes"][0]
    assert described["resampled"]
    assert any("tilted" in note for note in described["notes"])


def test_missing_slices_are_resampled_exactly(folder, read):
    for k, z in enumerate([0.0, 2.5, 5.0, 12.5, 15.0, 18.7]):
        plane = np.full((5, 6), round(100 + 40 * z), "<u2")
        folder.add(f"{k}", plane, ImagePositionPatient=[0, 0, z], RescaleIntercept=0)
    result = read(resample=True)
    volume = result.volume()
    assert volume.geometry.spacing[0] == pytest.approx(2.5)
    np.testing.assert_array_equal(volume.array[:, 2, 3], [100, 200, 300, 400, 500, 600, 700, 800])
    sources = [instance.sop_instance_uid[-1] for instance in result.record().source.instances]
    assert sources == ["1", "2", "3", "3", "4", "4", "5", "6"]
    assert "3 of 8 slices" in " ".join(result.content["series"][0]["volumes"][0]["notes"])


def test_two_slices_at_one_place_are_beyond_resampling(folder, refuse):
    folder.add_slices([0, 2.5, 2.5, 5])
    fault, _ = refuse(GeometryError, "both at", resample=True)
    assert "--resample" not in str(fault)


@pytest.mark.parametrize(
    "changes", [{"ImagePositionPatient": [-10, 20, 60000]}, {"ImagePositionPatient": [90, 20, 7.5]}]
)
def test_resampling_invents_no_more_than_there_is(folder, refuse, changes):
    folder.add_slices([0, 2.5, 5])
    folder.add("far", **changes)
    refuse(GeometryError, "apart|tilted", resample=True)


def test_a_slice_displaced_in_its_plane_is_refused(folder, refuse):
    folder.add_slices([0, 2.5, 7.5, 10])
    folder.add("off", ImagePositionPatient=[-7, 20, 5])
    refuse(GeometryError, "slice 3 at z=5.0 mm is displaced by 3 mm in its plane")


def test_a_stray_reformat_is_a_volume_of_its_own(folder, read):
    folder.add_slices([0, 2.5, 5, 7.5])
    folder.add_slices([0, 1], prefix="c", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    for number, name in enumerate(("c000", "c940")):
        (folder.path / name).unlink()
        folder.add(name, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, 3.0 * number, 0])
    result = read()
    assert result.names == ["1.2.840.99.2.mhd", "1.2.840.99.2_2.mhd"]
    assert result.volume().array.shape == (4, 5, 6)
    assert result.volume("1.2.840.99.2_2.mhd").array.shape == (2, 5, 6)
    orientations = [volume["orientation"] for volume in result.content["series"][0]["volumes"]]
    assert orientations == ["axial", "coronal"]


def test_one_bad_part_does_not_take_the_good_one(folder, read):
    folder.add_slices([0, 2.5, 5, 7.5])
    for number, y in enumerate((0, 1, 5)):
        folder.add(f"c{number}", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, y, 0])
    result = read()
    assert result.names == ["1.2.840.99.2.mhd"]
    assert result.content["series"][0]["state"] == "partly read"
    assert result.content["counts"] == {"files": 7, "read": 4, "refused": 3}


def test_one_slice_that_a_refused_stack_lacks_is_no_result(folder, refuse):
    folder.add_slices([0, 2.5, 7.5, 10])
    folder.add("mirrored", ImagePositionPatient=[-10, 20, 5], ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])
    _, result = refuse(GeometryError, "1 is missing between z=2.5 mm and z=7.5 mm")
    assert "one slice alone, and the other 4" in result.reasons["mirrored"]


@pytest.mark.parametrize(
    "times",
    [
        [{"TemporalPositionIdentifier": t} for t in (1, 2, 10)],
        [{"EchoTime": t} for t in ("2.5", "5", "10")],
        [{"AcquisitionNumber": t} for t in (1, 2, 3)],
        [{"AcquisitionDate": "20200101", "AcquisitionTime": t} for t in ("101010", "101020.5", "101030")],
    ],
)
def test_time_points_are_split_in_order(folder, read, times):
    for number, time in reversed(list(enumerate(times))):
        for z in (5.0, 0.0, 2.5):
            plane = np.full((5, 6), 100 * number + int(z), "<u2")
            folder.add(f"{number}-{z}", plane, ImagePositionPatient=[0, 0, z], RescaleIntercept=0, **time)
    result = read()
    assert result.names == ["1.2.840.99.2.mhd", "1.2.840.99.2_2.mhd", "1.2.840.99.2_3.mhd"]
    for number, name in enumerate(("", "_2", "_3")):
        array = result.volume(f"1.2.840.99.2{name}.mhd").array
        assert array[:, 0, 0].tolist() == [100 * number, 100 * number + 2, 100 * number + 5]
    assert all(volume["split"] for volume in result.content["series"][0]["volumes"])


def test_passes_of_a_clock_that_never_stands_are_split(folder, read):
    for number in range(6):
        plane = np.full((5, 6), number, "<u2")
        folder.add(
            f"{number}",
            plane,
            ImagePositionPatient=[0, 0, 2.5 * (number % 3)],
            AcquisitionTime=f"1010{number:02d}",
            AcquisitionDate="20200101",
            RescaleIntercept=0,
        )
    result = read()
    assert result.volume().array[:, 0, 0].tolist() == [0, 1, 2]
    assert result.volume("1.2.840.99.2_2.mhd").array[:, 0, 0].tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("one", "other", "split"),
    [
        ({"EchoNumbers": 1, "EchoTime": 10}, {"EchoNumbers": 2, "EchoTime": 90}, "EchoNumbers"),
        ({"EchoTime": "9.9"}, {"EchoTime": 90}, "EchoTime"),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "TemporalPositionIdentifier"),
        ({}, {"DiffusionBValue": 800.0}, "DiffusionBValue"),
    ],
)
def test_echoes_between_each_other_are_no_one_volume(folder, read, one, other, split):
    for number, changes in enumerate((one, other)):
        for z in (0.0, 6.0, 12.0):
            plane = np.full((5, 6), 100 * number + int(z), "<u2")
            position = [0, 0, z + 3 * number]
            folder.add(f"{number}-{z}", plane, ImagePositionPatient=position, RescaleIntercept=0, **changes)
    result = read()
    assert [result.volume(name).array[:, 0, 0].tolist() for name in result.names] == [[0, 6, 12], [100, 106, 112]]
    assert [result.volume(name).geometry.spacing[0] for name in result.names] == [6, 6]
    described = result.content["series"][0]["volumes"]
    assert all(volume["split"].startswith(split) for volume in described)
    assert result.content["counts"] == {"files": 6, "read": 6}


def test_times_of_echoes_between_each_other(folder, read):
    for number in range(16):
        time, echo, step = number % 2, number // 2 % 2, number // 4
        folder.add(
            f"{number}",
            ImagePositionPatient=[0, 0, 12 * step + 3 * time + 6 * echo],
            TemporalPositionIdentifier=time + 1,
            EchoNumbers=echo + 1,
        )
    result = read()
    assert [volume["split"] for volume in result.content["series"][0]["volumes"]] == [
        f"TemporalPositionIdentifier {time}, EchoNumbers {echo}" for time in (1, 2) for echo in (1, 2)
    ]


@pytest.mark.parametrize(
    ("places", "values"),
    [
        ([0, 2, 4, 6, 8], [1, 1, 1, 1, 2]),  # one slice alone is no stack
        ([0, 2, 4, 6, 8, 10], [1, 2, 3, 4, 5, 6]),  # a number for each slice
        ([0, 2, 4, 6, 8, 10], [1, 1, 2, 1, 2, 2]),  # those of a number lie unevenly
        ([0, 2, 4, 6, 8, 10], ["1", "1.0", "1", "01", "1", "1.00"]),
    ],
)
@pytest.mark.parametrize("resample", [False, True])
def test_what_tells_no_stacks_apart_leaves_one_volume(folder, read, places, values, resample):
    for number, (z, value) in enumerate(zip(places, values, strict=True)):
        folder.add(f"{number}", ImagePositionPatient=[0, 0, z], EchoTime=value)
    result = read(resample=resample)
    assert result.names == ["1.2.840.99.2.mhd"]
    assert result.volume().array.shape[0] == len(places)


def test_echoes_of_a_tilted_gantry_are_resampled_each(folder, read):
    for number in range(10):
        folder.add(f"{number}", ImagePositionPatient=[0, 0.2 * number, 2.0 * number], EchoNumbers=number % 2)
    result = read(resample=True)
    assert [result.volume(name).array.shape[0] for name in result.names] == [5, 5]


@pytest.mark.parametrize(
    ("changes", "spacing"),
    [({}, 2.5), ({"SpacingBetweenSlices": 3}, 3.0), ({"SliceThickness": None}, None)],
)
def test_one_slice_alone_needs_a_thickness(folder, read, refuse, changes, spacing):
    folder.add("1", **changes)
    if spacing is None:
        refuse(GeometryError, "one slice alone, without SliceThickness")
    else:
        assert read().volume().geometry.spacing == (spacing, 0.75, 0.5)


def test_geometry_is_simpleitks(folder, read, shared_data, tmp_path):
    import SimpleITK

    for name in ("ct-head-small", "ct-abdomen-siemens"):
        result = read(shared_data / name)
        for path in result.report.volumes:
            names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(shared_data / name), path.stem)
            image = SimpleITK.ReadImage(names)
            volume = result.volume(path.name)
            peer = np.eye(4)
            peer[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
            peer[:3, 3] = image.GetOrigin()
            theirs = VolumeGeometry.from_affine(peer, SimpleITK.GetArrayViewFromImage(image).shape)
            assert theirs.is_close(volume.geometry, tolerance_mm=0.05)
            np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayViewFromImage(image))

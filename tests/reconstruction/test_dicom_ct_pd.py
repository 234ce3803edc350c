"""DICOM-CT-PD: where source and elements are, in mm, by the manual's own formula; and what is refused."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from ct_pd_files import COLUMNS, ROWS, SERIES, Scan

from clara_wf.imaging.dicom_attributes import FILE
from clara_wf.imaging.dicom_header import read_header
from clara_wf.imaging.dicom_reader import read_folder
from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.record import read_record
from clara_wf.model.errors import DicomError, InputError
from clara_wf.reconstruction.ct_pd_stack import write_ct_pd
from clara_wf.reconstruction.dicom_ct_pd import open_ct_pd
from clara_wf.reconstruction.geometry import DetectorShape
from clara_wf.reconstruction.inputs import InputOptions, open_inputs

SHIFTS = {
    "SourceAngularPositionShift": 0.002,
    "SourceAxialPositionShift": 0.5,
    "SourceRadialDistanceShift": -3.0,
    "FlyingFocalSpotMode": "FFSXYZ",
}


def by_the_manual(numbers: dict, row: int, column: int, *, z_sign: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return source and element, counted from 1, of the manual's formula in our frame: x right, y down, z."""
    phi, z = numbers["DetectorFocalCenterAngularPosition"], numbers["DetectorFocalCenterAxialPosition"]
    rho, d0 = numbers["DetectorFocalCenterRadialDistance"], numbers["ConstantRadialDistance"]
    spot_phi = phi + numbers["SourceAngularPositionShift"]
    spot_rho = rho + numbers["SourceRadialDistanceShift"]
    source = np.array([-spot_rho * np.sin(spot_phi), spot_rho * np.cos(spot_phi), z])
    source[2] += numbers["SourceAxialPositionShift"]
    central_column, central_row = numbers["DetectorCentralElement"]
    u = (column - central_column) * numbers["DetectorElementTransverseSpacing"]
    v = (row - central_row) * numbers["DetectorElementAxialSpacing"]
    focus = np.array([-rho * np.sin(phi), rho * np.cos(phi)])
    inward, aside = -focus / rho, np.array([np.cos(phi), np.sin(phi)])
    if numbers["DetectorShape"] == "FLAT":
        place = focus + d0 * inward + u * aside
    else:
        place = focus + d0 * (np.cos(u / d0) * inward + np.sin(u / d0) * aside)
    flip = np.array([1, -1, z_sign])
    return source * flip, np.array([*place, z - v]) * flip


def by_ours(geometry, view: int, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Return source and element, counted from 0, of our geometry."""
    angle, z, spot = geometry.angles[view], geometry.axial[view], geometry.focal_spot
    turned = angle + (spot.angle[view] if spot else 0)
    radius = geometry.source_to_isocenter + (spot.radial[view] if spot else 0)
    source = np.array([radius * np.sin(turned), -radius * np.cos(turned), z + (spot.axial[view] if spot else 0)])
    detector, sdd = geometry.detector, geometry.source_to_detector
    u = (column - detector.central_column) * detector.column_spacing
    v = (row - detector.central_row) * detector.row_spacing
    outward, across = np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    focus = geometry.source_to_isocenter * outward
    if detector.shape is DetectorShape.FLAT:
        place = focus - sdd * outward + u * across
    else:
        place = focus + sdd * (-np.cos(u / sdd) * outward + np.sin(u / sdd) * across)
    return source, np.array([*place, z + v])


@pytest.mark.parametrize("shape", ["CYLINDRICAL", "FLAT"])
@pytest.mark.parametrize("shifts", [{}, SHIFTS])
@pytest.mark.parametrize("maker", ["SIEMENS", "GE MEDICAL SYSTEMS"])
def test_rays_run_where_the_manual_says(scan, shape, shifts, maker):
    scan.fill(standard={"Manufacturer": maker}, DetectorShape=shape, **shifts)
    (series,) = open_ct_pd(scan.path)
    ge = maker.startswith("GE")
    assert (series.geometry.focal_spot is None) == (not shifts)
    assert any("reversed" in note for note in series.notes) == ge
    rays = series.read(0, 5)
    for view in range(5):
        numbers, pixels = scan.numbers(view) | shifts | {"DetectorShape": shape}, scan.pixels(view)
        for row, column in ((1, 1), (2, 5), (ROWS, COLUMNS)):
            mine = row - 1 if ge else ROWS - row
            theirs = by_the_manual(numbers, row, column, z_sign=-1.0 if ge else 1.0)
            assert by_ours(series.geometry, view, mine, column - 1)[0] == pytest.approx(theirs[0], abs=1e-3)
            assert by_ours(series.geometry, view, mine, column - 1)[1] == pytest.approx(theirs[1], abs=1e-3)
            assert rays[view, mine, column - 1] == pytest.approx(pixels[row - 1, column - 1] * 0.001 - 0.05)


def test_angles_are_unwrapped_in_the_order_of_instance_numbers(scan):
    (series,) = open_ct_pd(scan.fill(views=9).path)
    assert np.diff(series.geometry.angles) == pytest.approx(np.full(8, -0.1), abs=1e-5)
    assert np.diff(series.geometry.axial) == pytest.approx(np.full(8, 0.75))
    assert (series.name, series.patient_position, series.water_attenuation) == (SERIES, "FFS", 0.0192)


@pytest.mark.parametrize("how", [{}, {"transposed": False}, {"implicit": True}, {"unknown": True}])
def test_every_way_of_writing_is_the_same(scan, how):
    path = scan.fill(**how).path
    (series,) = open_ct_pd(path)
    expected = np.stack([scan.pixels(view)[::-1] for view in range(5)]) * 0.001 - 0.05
    assert series.read(0, 5) == pytest.approx(expected, abs=1e-6)
    assert series.geometry.detector.central_row == pytest.approx(ROWS - 2.5)
    assert not read_header(next(path.iterdir()), FILE).by_pydicom  # the quick way
    assert [one.name for one in open_inputs(path, InputOptions())] == [SERIES]


def test_the_reader_writes_a_stack(scan, tmp_path):
    scan.fill(**SHIFTS)
    (scan.path / "notes.txt").write_text("MARKER")
    (tmp_path / "output").mkdir()
    report = read_folder(scan.path, tmp_path / "output", read_projections=write_ct_pd)
    header = tmp_path / "output" / f"{SERIES}.mhd"
    assert report.volumes == (header,)
    assert Counter(state for state, _ in report.files.values()) == {"projection": 5, "not DICOM": 1}
    content = json.loads((tmp_path / "output" / "series.json").read_text())
    (volume,) = content["series"][0]["volumes"]
    assert (volume["name"], volume["shape"], volume["dtype"]) == (header.name, [5, ROWS, COLUMNS], "uint16")
    assert (content["series"][0]["state"], content["series"][0]["files"]) == ("read", {"projection": 5})
    assert "MARKER" not in json.dumps(content)
    record = read_record(header)
    assert record.kind == "projections"
    assert [one.sop_instance_uid for one in record.source.instances] == [f"{SERIES}.{view + 1}" for view in range(5)]
    assert record.source.dataset["00100010"]["Value"] == [{"Alphabetic": "MARKERNAME^X"}]
    assert np.array_equal(read_volume(header).array[3], scan.pixels(3)[::-1])
    (stack,), (series,) = open_inputs(tmp_path / "output", InputOptions()), open_ct_pd(scan.path)
    assert stack.read(0, 5) == pytest.approx(series.read(0, 5))
    assert stack.geometry.angles == pytest.approx(series.geometry.angles)
    assert stack.geometry.focal_spot.axial == pytest.approx(series.geometry.focal_spot.axial)
    assert (stack.patient_position, stack.water_attenuation) == ("FFS", 0.0192)


def test_different_slopes_become_line_integrals(scan, tmp_path):
    scan.fill(views=4)
    scan.add(4, standard={"RescaleSlope": "0.002"})
    (tmp_path / "output").mkdir()
    read_folder(scan.path, tmp_path / "output", read_projections=write_ct_pd)
    array = read_volume(tmp_path / "output" / f"{SERIES}.mhd").array
    assert array.dtype == np.float32
    assert array[4] == pytest.approx(scan.pixels(4)[::-1] * 0.002 - 0.05)


def test_without_a_reader_of_projections_they_are_passed_over(scan, tmp_path):
    with pytest.raises(InputError, match="5 not selected"):
        read_folder(scan.fill().path, tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ConstantRadialDistance": None}, r"ConstantRadialDistance \(7031,1031\) is missing"),
        (
            {"DetectorShape": None, "LogFlag": None},
            r"DetectorShape \(7029,100B\), LogFlag \(7039,1009\) are missing",
        ),
        ({"LogFlag": "NO"}, r"LogFlag \(7039,1009\) is NO: its values are no line integrals"),
        ({"DetectorShape": "SPHERICAL"}, r"DetectorShape \(7029,100B\) is SPHERICAL"),
        ({"TypeofProjectionGeometry": "PARALLELBEAM"}, "PARALLELBEAM: rebinned"),
        ({"NumberofDetectorRows": 5}, "its matrix is 6 x 4, and its detector has 5 rows and 6 columns"),
        ({"FlyingFocalSpotMode": "FFSZ", "SourceAxialPositionShift": None}, "SourceAxialPositionShift"),
        ({"DetectorCentralElement": [1.0]}, "DetectorCentralElement .* is not 2 finite numbers"),
        ({"DetectorFocalCenterAxialPosition": np.nan}, "DetectorFocalCenterAxialPosition .* is not a finite number"),
        ({"DetectorElementAxialSpacing": 0.0}, r"DetectorElementAxialSpacing \(7029,1006\) is 0 mm"),
        ({"standard": {"InstanceNumber": None}}, r"InstanceNumber \(0020,0013\) is missing"),
        ({"DetectorElementAxialSpacing": 1.6}, "DetectorElementAxialSpacing varies .* between 1.5 and 1.6 mm"),
        ({"SpectrumIndex": 2}, r"2 spectra \(SpectrumIndex 1, 2\)"),
        ({"TypeofProjectionData": "AXIAL"}, "2 kinds of scan"),
        ({"transposed": False}, "different matrices or detectors"),
        ({"standard": {"InstanceNumber": 1}}, "InstanceNumber 1 is given to several projections"),
        ({"standard": {"PatientID": "MARKEROTHER"}}, "2 patients"),
        ({"standard": {"StudyInstanceUID": "1.2.3"}}, "2 studies"),
    ],
)
def test_a_scan_with_a_fault_is_refused_in_one_line(scan, tmp_path, change, told):
    scan.fill(views=4)
    scan.add(4, **change)
    with pytest.raises(DicomError, match=told) as error:
        open_ct_pd(scan.path)
    assert "MARKER" not in str(error.value)
    with pytest.raises(DicomError, match=told):
        read_folder(scan.path, tmp_path, read_projections=write_ct_pd)
    files = json.loads((tmp_path / "series.json").read_text())["files"]
    assert all(file["reason"] for file in files)
    assert "refused" in {file["state"] for file in files}
    assert not list(tmp_path.glob(f"{SERIES}*"))


def test_a_gap_is_named_and_passed_over_on_demand(scan, tmp_path):
    for view in (0, 1, 4, 5, 7):
        scan.add(view)
    with pytest.raises(DicomError, match=r"projections 3 to 4, 7 of 8 are missing.*--missing-projections=reweight"):
        open_ct_pd(scan.path)
    (series,) = open_ct_pd(scan.path, reweight=True)
    assert series.notes[0] == "projections 3 to 4, 7 of 8 are missing"
    assert len(series.read(0, 5)) == 5


def test_a_file_that_is_cut_off(scan, tmp_path):
    scan.fill()
    path = scan.add(5)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DicomError, match=r"1 of its 6 projections cannot be used .*44 of the 48 bytes"):
        read_folder(scan.path, tmp_path, read_projections=write_ct_pd)
    files = {file["path"]: file["state"] for file in json.loads((tmp_path / "series.json").read_text())["files"]}
    assert files[path.name] == "truncated"


def test_the_same_file_twice_counts_once(scan, tmp_path):
    path = scan.fill().path
    (path / "copy").write_bytes(next(path.iterdir()).read_bytes())
    (tmp_path / "output").mkdir()
    report = read_folder(path, tmp_path / "output", read_projections=write_ct_pd)
    assert report.counts == {"projection": 5, "duplicate": 1}


def test_a_missing_position_is_noted(scan):
    (series,) = open_ct_pd(scan.fill(standard={"PatientPosition": None}).path)
    assert series.patient_position is None
    assert "how the patient lay is not said" in series.notes[0]


def test_images_and_projections_of_one_series(scan, tmp_path):
    scan.fill(views=2)
    names = [name for name in Scan.numbers(0) if not name.startswith("Water")]
    scan.add(
        2,
        standard={
            "ImagePositionPatient": [0, 0, 0],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
        },
        **dict.fromkeys(names),
    )
    with pytest.raises(DicomError, match="2 kinds, images and projections"):
        read_folder(scan.path, tmp_path, read_projections=write_ct_pd)

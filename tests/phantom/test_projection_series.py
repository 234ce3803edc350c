from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from clara_wf.model.errors import UsageError
from clara_wf.phantom.projection_series import projection_series, projection_source, write_projection_series
from clara_wf.phantom.scans import cone, fan, parallel
from clara_wf.reconstruction.geometry import FocalSpot

from .scanned import short_helix, slab


def value(dataset: pydicom.Dataset, group: int, element: int):
    return dataset[group, 0x1000 + element].value


def test_the_layout_is_that_of_our_series(tmp_path):
    scan = slab()
    files = write_projection_series(tmp_path, scan)
    first = pydicom.dcmread(files[0])
    assert len(files) == len(set(files)) == scan.geometry.views
    assert files[0].relative_to(tmp_path).parts == (
        "CLARA-PHANTOM",
        first.StudyInstanceUID,
        first.SeriesInstanceUID,
        f"{first.SOPInstanceUID}.dcm",
    )
    assert [pydicom.dcmread(path).InstanceNumber for path in files] == list(range(1, scan.geometry.views + 1))
    assert str(first.PatientName) == "PHANTOM^ABDOMEN"
    assert (first.Modality, first.PatientPosition, first.Manufacturer) == ("CT", "HFS", "clara-wf")
    assert list(first.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert first.FrameOfReferenceUID
    assert first.KVP == 120
    assert first.ExposureTime == 500


def test_stored_values_are_the_line_integrals_with_the_head_first(tmp_path):
    scan = slab()
    files = write_projection_series(tmp_path, scan)
    for view, integrals in scan.line_integrals():
        read = pydicom.dcmread(files[view])
        values = read.pixel_array * float(read.RescaleSlope) + float(read.RescaleIntercept)
        assert np.abs(values[::-1] - integrals).max() < 1.3e-4


def test_the_geometry_is_told_in_the_format_s_own_frame(tmp_path):
    scan = slab()
    geometry, detector = scan.geometry, scan.geometry.detector
    for view, path in enumerate(write_projection_series(tmp_path, scan)):
        read = pydicom.dcmread(path)
        phi = value(read, 0x7031, 0x01)
        assert 0 <= phi < 2 * math.pi + 1e-6
        assert math.remainder(phi + geometry.angles[view], 2 * math.pi) == pytest.approx(0, abs=1e-5)
        assert value(read, 0x7031, 0x02) == pytest.approx(geometry.axial[view], abs=1e-4)
    assert read[0x7029, 0x10].value == "DetectorSystemArrangementModule"
    assert read[0x7033, 0x10].value == "SourceDynamicsModule"
    assert value(read, 0x7029, 0x02) == pytest.approx(detector.column_spacing)
    assert value(read, 0x7029, 0x06) == pytest.approx(detector.row_spacing)
    assert value(read, 0x7029, 0x0B) == "CYLINDRICAL"
    assert (value(read, 0x7029, 0x10), value(read, 0x7029, 0x11)) == (detector.rows, detector.columns)
    assert (value(read, 0x7031, 0x03), value(read, 0x7031, 0x31)) == (595, 1085)
    assert list(value(read, 0x7031, 0x33)) == pytest.approx([162.75, 12.5])
    assert value(read, 0x7033, 0x0E) == "FFSNONE"
    assert value(read, 0x7033, 0x13) == 8
    assert (value(read, 0x7033, 0x61), value(read, 0x7033, 0x63)) == (1, 1)
    assert list(value(read, 0x7033, 0x65)) == [scan.photons] * detector.columns
    assert (value(read, 0x7037, 0x09), value(read, 0x7037, 0x0A)) == ("HELICAL", "FANBEAM")
    assert [value(read, 0x7039, element) for element in range(3, 10)] == ["NO"] * 6 + ["YES"]
    assert value(read, 0x7041, 0x01) == 0.0192


def test_a_flying_focal_spot_is_told_view_by_view():
    sign = (-1.0) ** np.arange(20)
    spot = FocalSpot(angle=0.002 * sign, axial=0.5 * sign, radial=-1.5 * sign)
    first, second, *_ = projection_series(slab(replace(short_helix(), focal_spot=spot)))
    assert value(first, 0x7033, 0x0E) == "FFSXYZ"
    assert [value(first, 0x7033, element) for element in (0x0B, 0x0C, 0x0D)] == pytest.approx([-0.002, 0.5, -1.5])
    assert value(second, 0x7033, 0x0C) == pytest.approx(-0.5)


@pytest.mark.parametrize("geometry", [fan(6), cone(4)])
def test_a_circle_is_axial(geometry, tmp_path):
    *_, last = projection_series(slab(geometry))
    assert value(last, 0x7037, 0x09) == "AXIAL"
    assert value(last, 0x7029, 0x0B) == ("CYLINDRICAL" if geometry.detector.rows == 1 else "FLAT")


def test_a_ray_without_a_photon_has_the_largest_value():
    stored = [dataset.pixel_array for dataset in projection_series(replace(slab(), photons=20.0))]
    assert max(plane.max() for plane in stored) == 65535


def test_the_same_scan_gives_the_same_bytes_and_its_record_names_them(tmp_path):
    scan = slab()
    files = write_projection_series(tmp_path / "first", scan)
    again = write_projection_series(tmp_path / "again", slab())
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]
    source = projection_source(scan)
    read = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    assert [instance.sop_instance_uid for instance in source.instances] == [dataset.SOPInstanceUID for dataset in read]
    assert source.series_uid == read[0].SeriesInstanceUID
    assert source.study_uid == read[0].StudyInstanceUID
    assert source.frame_of_reference_uid == read[0].FrameOfReferenceUID
    described = pydicom.Dataset.from_json(dict(source.dataset))
    assert described.PatientID == "CLARA-PHANTOM"
    assert "SOPInstanceUID" not in described


def test_datasets_share_nothing():
    first, second, *_ = projection_series(slab())
    assert first.InstanceNumber != second.InstanceNumber
    first.PatientName = "Changed"
    assert second.PatientName == "PHANTOM^ABDOMEN"


def test_a_parallel_beam_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="no parallel beam"):
        write_projection_series(tmp_path, slab(parallel(4)))
    assert not list(tmp_path.iterdir())


def test_progress_is_told_to_the_end(tmp_path):
    shares: list[float] = []
    write_projection_series(tmp_path, slab(), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1

"""RTK's geometry file, held against RTK itself: where a point of space is seen, in pixels."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.geometry import Beam, DetectorShape
from clara_wf.reconstruction.inputs import InputOptions, open_inputs
from clara_wf.reconstruction.rtk_geometry import open_rtk_stack

SPACING, ORIGIN = (1.0, 1.5, 0.75), (-3.0, 2.0, 0.0)


def xml(common: str = "", views: tuple[str, ...] = ()) -> str:
    inner = "".join(f"<Projection>{view}<Matrix>1 2 3</Matrix></Projection>" for view in views)
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n'
        f'<RTKThreeDCircularGeometry version="3">{common}{inner}</RTKThreeDCircularGeometry>'
    )


def tags(**values: float) -> str:
    return "".join(f"<{name}>{value}</{name}>" for name, value in values.items())


CONE = tags(SourceToIsocenterDistance=500, SourceToDetectorDistance=1000)
VIEWS = tuple(tags(GantryAngle=angle) for angle in (350, 10, 30))


def opened(path):
    return open_rtk_stack(path, path.with_suffix(".xml"))


@pytest.fixture
def rtk_stack(stack):
    return lambda text, **more: stack(text, beside="{name}.xml", spacing=SPACING, origin=ORIGIN, **more)


def seen(geometry, view: int, point: np.ndarray) -> tuple[float, float]:
    """Return row and column that see a point of the scanner frame, on a flat detector."""
    detector, angle = geometry.detector, geometry.angles[view]
    across, along = np.array([np.cos(angle), np.sin(angle), 0]), np.array([0, 0, 1.0])
    outward = np.array([np.sin(angle), -np.cos(angle), 0])
    centre = along * geometry.axial[view]
    if geometry.beam is Beam.PARALLEL:
        u, v = (point - centre) @ across, (point - centre) @ along
    else:
        spot = geometry.focal_spot
        turned = angle + (spot.angle[view] if spot else 0)
        radius = geometry.source_to_isocenter + (spot.radial[view] if spot else 0)
        source = centre + radius * np.array([np.sin(turned), -np.cos(turned), 0])
        plane = geometry.source_to_isocenter - geometry.source_to_detector
        ray = point - source
        hit = source + ray * (plane - source @ outward) / (ray @ outward)
        u, v = (hit - centre) @ across, (hit - centre) @ along
    return detector.central_row + v / detector.row_spacing, detector.central_column + u / detector.column_spacing


@pytest.mark.slow
@pytest.mark.xdist_group("rtk")
def test_points_are_seen_where_rtk_sees_them(rtk_stack, tmp_path):
    rtk = pytest.importorskip("itk").RTK
    scans = {
        "cone": [(500, 1000, angle, 1, 3) for angle in (20, 50, 170)],
        "source": [(500, 1000, angle, 1, 3, 0, 0, 5, 2) for angle in (20, 50, 170)],
        "helix": [(500, 1000, 30 * k, 1, 3 + 4 * k, 0, 0, 0, 4 * k) for k in range(3)],
        "parallel": [(500, 0, angle, 1, 3) for angle in (20, 50, 170)],
    }
    for name, views in scans.items():
        theirs = rtk.ThreeDCircularProjectionGeometry.New()
        for view in views:
            theirs.AddProjection(*view)
        writer = rtk.ThreeDCircularProjectionGeometryXMLFileWriter.New()
        writer.SetObject(theirs)
        writer.SetFilename(str(tmp_path / "written.xml"))
        writer.WriteFile()
        ours = opened(rtk_stack((tmp_path / "written.xml").read_text(), name=name)).geometry
        for view in range(3):
            matrix = np.array([[theirs.GetMatrix(view)(row, column) for column in range(4)] for row in range(3)])
            for point in ([0.0, 0, 0], [30, -20, 10], [-5, 40, -25]):
                x, y, z = point
                u, v, w = matrix @ [x, z, -y, 1]
                expected = ((v / w - ORIGIN[1]) / SPACING[1], (u / w - ORIGIN[0]) / SPACING[2])
                assert seen(ours, view, np.array(point)) == pytest.approx(expected, abs=1e-6), (name, view, point)


def test_a_cone_beam(rtk_stack, tmp_path):
    found = opened(rtk_stack(xml(CONE + tags(ProjectionOffsetX=1), VIEWS)))
    assert found.geometry.beam is Beam.CONE
    assert found.patient_position is None
    assert np.rad2deg(found.geometry.angles) == pytest.approx([350, 370, 390])  # unwrapped
    assert found.geometry.detector.central_column == pytest.approx(2 / 0.75)
    assert found.geometry.detector.central_row == pytest.approx(-2 / 1.5)
    assert found.geometry.focal_spot is None
    assert [one.name for one in open_inputs(tmp_path, InputOptions())] == ["scan.mhd"]


def test_a_curved_detector(rtk_stack):
    found = opened(rtk_stack(xml(CONE + tags(RadiusCylindricalDetector=1000), VIEWS)))
    assert found.geometry.detector.shape is DetectorShape.ARC


@pytest.mark.parametrize(
    ("common", "views", "told"),
    [
        (CONE, VIEWS[:2], "has 2 projections for 3 views"),
        (CONE, ("", "", ""), "GantryAngle is missing"),
        (tags(SourceToDetectorDistance=1000), VIEWS, "source_to_isocenter is missing"),
        (CONE + tags(InPlaneAngle=1), VIEWS, "InPlaneAngle is 1 degrees"),
        (CONE, (VIEWS[0], VIEWS[1], VIEWS[2] + tags(OutOfPlaneAngle=-2)), "OutOfPlaneAngle is -2 degrees"),
        (CONE, (*VIEWS[:2], VIEWS[2] + tags(ProjectionOffsetX=2)), "ProjectionOffsetX varies .* between 0 and 2 mm"),
        (CONE, (*VIEWS[:2], VIEWS[2] + tags(SourceOffsetY=2)), "ProjectionOffsetY without SourceOffsetY varies"),
        (CONE, (*VIEWS[:2], VIEWS[2] + tags(SourceToIsocenterDistance=501)), "SourceToIsocenterDistance varies"),
        (CONE + tags(RadiusCylindricalDetector=900), VIEWS, "RadiusCylindricalDetector is 900 mm"),
        (CONE + tags(RadiusCylindricalDetector=1000, SourceOffsetX=1), VIEWS, "not curved about the source"),
        (tags(SourceOffsetX=1), VIEWS, "a parallel beam has SourceOffsetX"),
        (CONE + tags(CollimationUInf=1), VIEWS, "has CollimationUInf, which is not supported"),
        (CONE + "<GantryAngle>x</GantryAngle>", VIEWS, "GantryAngle is no number"),
    ],
)
def test_what_cannot_be_represented_is_named(rtk_stack, common, views, told):
    with pytest.raises(GeometryError, match=told):
        opened(rtk_stack(xml(common, views)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no XML"),
        ("<a/>", "no geometry of RTK"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
    ],
)
def test_other_files_are_refused(rtk_stack, text, told):
    with pytest.raises(GeometryError, match=told):
        opened(rtk_stack(text))


def test_counts_are_refused(rtk_stack):
    with pytest.raises(GeometryError, match=r"uint16, and scan\.xml does not say how they become line integrals"):
        opened(rtk_stack(xml(CONE, VIEWS), array=np.zeros((3, 4, 6), np.uint16)))

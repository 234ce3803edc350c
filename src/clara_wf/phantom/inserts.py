"""A body of water with rods of known density: what a reconstruction's Hounsfield units are measured on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from clara_wf.phantom.parts import Anatomy, Marker, Part
from clara_wf.phantom.shapes import Superellipsoid


@dataclass(frozen=True, kw_only=True)
class Insert:
    """A rod along the axis of rotation, endless."""

    name: str
    centre: tuple[float, float]  # x and y, LPS mm
    radius: float  # mm
    hu: float  # density in Hounsfield units


BODY_RADII: Final = (150.0, 110.0)  # of the elliptic cylinder of water, x and y in mm
INSERTS: Final = (
    Insert(name="air", centre=(-92.0, 28.0), radius=15.0, hu=-1000.0),
    Insert(name="fat", centre=(-52.0, -56.0), radius=14.0, hu=-100.0),
    Insert(name="water", centre=(46.0, -60.0), radius=14.0, hu=0.0),
    Insert(name="liver", centre=(98.0, 18.0), radius=15.0, hu=108.0),
    Insert(name="bone", centre=(12.0, 64.0), radius=12.5, hu=900.0),
)
#: Beads in the air about the body, at heights that every scan sees. Their triangle has no symmetry.
BEADS: Final = (
    Marker(name="front left", centre=(72.0, -128.0, 16.0), radius=5.0, hu=2400.0),
    Marker(name="right flank", centre=(-178.0, -22.0, 9.0), radius=5.0, hu=2400.0),
    Marker(name="front right, low", centre=(-34.0, -134.0, 2.0), radius=5.0, hu=2400.0),
)


def inserts() -> Anatomy:
    """Return the phantom as data, of infinite resolution."""
    body = Part(name="water", hu=0.0, shape=Superellipsoid(centre=(0, 0, 0), radii=(*BODY_RADII, math.inf)))
    rods = (
        Part(
            name=insert.name,
            hu=insert.hu,
            shape=Superellipsoid(centre=(*insert.centre, 0.0), radii=(insert.radius, insert.radius, math.inf)),
        )
        for insert in INSERTS
    )
    return Anatomy(parts=(body, *rods), markers=BEADS)


def inserts_truth() -> dict[str, Any]:
    """Return what a perfect reconstruction would show, as JSON types."""
    return {
        "schema": "clara-wf/inserts/1",
        "body": {"radii_mm": list(BODY_RADII), "hu": 0.0},
        "inserts": [
            {"name": insert.name, "centre_mm": list(insert.centre), "radius_mm": insert.radius, "hu": insert.hu}
            for insert in INSERTS
        ],
        "markers": [asdict(bead) for bead in BEADS],
    }

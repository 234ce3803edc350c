"""Exact projections of ellipsoids, by geometry of our own: what a reconstruction is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clara_wf.reconstruction.geometry import Beam, DetectorShape, ScanGeometry

WATER = 0.02  # 1/mm


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """A body of one density; later ones add to earlier ones."""

    centre: tuple[float, float, float]  # mm, scanner frame
    radii: tuple[float, float, float]  # mm; a very large one makes a cylinder
    density: float  # in units of water, added to what is there


def rays(geometry: ScanGeometry, view: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a point (3) or (rows, columns, 3), and the unit directions (rows, columns, 3) of a view's rays."""
    detector, beta = geometry.detector, float(geometry.angles[view])
    v = (np.arange(detector.rows) - detector.central_row) * detector.row_spacing + geometry.axial[view]
    u = (np.arange(detector.columns) - detector.central_column) * detector.column_spacing
    e_u, towards = np.array([np.cos(beta), np.sin(beta), 0.0]), np.array([np.sin(beta), -np.cos(beta), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    if geometry.beam is Beam.PARALLEL:
        start = u[None, :, None] * e_u + v[:, None, None] * up + 1000 * towards
        return start, np.broadcast_to(-towards, start.shape)
    focus = geometry.source_to_isocenter * towards
    if detector.shape is DetectorShape.ARC:
        angle = u / geometry.source_to_detector
        flat = geometry.source_to_detector * (-np.cos(angle)[:, None] * towards + np.sin(angle)[:, None] * e_u)
    else:
        flat = -geometry.source_to_detector * towards + u[:, None] * e_u
    element = focus + flat[None, :, :] + v[:, None, None] * up
    source = focus + geometry.axial[view] * up
    if geometry.focal_spot is not None:
        spot = geometry.focal_spot
        turned = beta + float(spot.angle[view])
        source = (geometry.source_to_isocenter + float(spot.radial[view])) * np.array(
            [np.sin(turned), -np.cos(turned), 0.0]
        ) + (geometry.axial[view] + float(spot.axial[view])) * up
    direction = element - source
    return source, direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def project(bodies: Sequence[Ellipsoid], geometry: ScanGeometry) -> NDArray[np.float32]:
    """Return the exact line integrals [view, row, column]."""
    detector = geometry.detector
    views = np.zeros((geometry.views, detector.rows, detector.columns), np.float32)
    for view in range(geometry.views):
        start, direction = rays(geometry, view)
        for body in bodies:
            scale = 1 / np.array(body.radii)
            p, d = (start - np.array(body.centre)) * scale, direction * scale
            a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
            views[view] += WATER * body.density * 2 * np.sqrt(np.clip(b * b - a * c, 0, None)) / a
    return views


def paint(bodies: Sequence[Ellipsoid], x: NDArray[np.float64], y: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    """Return the densities, in units of water, of points of a slice."""
    found = np.zeros(np.broadcast(x, y).shape)
    for body in bodies:
        inside = sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), body.centre, body.radii, strict=True))
        found += body.density * (inside <= 1)
    return found

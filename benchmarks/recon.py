"""Reconstruction beside named peers, in one run: `recon [slice] [cone] [helical] [few] [speed]`, or all of them.

`slice`: one slice of the head phantom of Shepp and Logan, whose projections are exact, beside ASTRA and scikit-image.
`cone`: FDK, beside RTK's own command `rtkfdk`, as whole processes on the same files. `helical`: rods of known density
and beads at known places; nobody publishes a reconstruction of helices to compare with, so the truth is the peer.
`few`: the iterative method on few views, beside filtered backprojection and the peers' iterative methods. `speed`: the
parallel slices of the peers and of RTK.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.volume import Volume
from clara_wf.phantom.acquisition import acquisition
from clara_wf.phantom.inserts import BEADS, INSERTS, inserts
from clara_wf.phantom.projection_volume import write_projection_volume
from clara_wf.phantom.scans import helical as helical_scan
from clara_wf.reconstruction.filtered import filtered_backprojection
from clara_wf.reconstruction.geometry import Beam, Detector, ScanGeometry
from clara_wf.reconstruction.inputs import InputOptions, open_inputs
from clara_wf.reconstruction.iterative import iterative
from clara_wf.reconstruction.options import Method, Options
from clara_wf.reconstruction.reconstruct import plan
from clara_wf.reconstruction.rtk import scan, slices_of, toolkit
from support import recon_peers, shepp_logan

Image = NDArray[np.float32]

GOAL_ERROR = 1.0  # ours over the best peer's
GOAL_CONE_DIFFERENCE = 1e-3  # of the volumes, relative
GOAL_CONE_TIME = 1.1  # ours over rtkfdk
GOAL_BESIDE_GIB = 1.0  # above what --memory allows
TURNS = 3

COLUMNS, VIEWS = 257, 360
COLUMN = 200 / 256  # mm
INSIDE = 95.0  # mm from the axis: the head and some air
SOURCE, DISTANCE = 500.0, 800.0  # of the fan, mm

CONE_VIEWS, CONE_COLUMNS, CONE_ROWS, CONE_SPACING = 300, 512, 384, 0.8
CONE_SOURCE, CONE_DISTANCE = 1000.0, 1536.0
CONE_OPTIONS = Options(matrix=256, field_of_view=204.8, slice_thickness=0.7)

FEW_VIEWS = 40
MEMORY_GIB = 0.25


def main() -> None:
    """Run what was asked for, or all."""
    sections = {"slice": _slice, "cone": _cone, "helical": _helical, "few": _few, "speed": _speed}
    asked = sys.argv[1:] or list(sections)
    if unknown := [name for name in asked if name not in sections]:
        sys.exit(f"recon: {', '.join(unknown)} is none of {', '.join(sections)}")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    recon_peers.print_missing()
    started = time.perf_counter()
    toolkit()  # once, so that it is in the page cache for all
    print(f"importing RTK: {time.perf_counter() - started:.1f} s")
    for name in asked:
        sections[name]()


def _held(value: float, goal: float) -> str:
    return f"goal: at most {goal:g}: {'held' if value <= goal else 'NOT held'}"


# One slice


def _slice() -> None:
    half_turn = np.arange(VIEWS) * (math.pi / VIEWS)
    offsets = (np.arange(COLUMNS) - COLUMNS // 2) * COLUMN
    sinogram = shepp_logan.line_integrals(half_turn[:, None], offsets[None, :])
    geometry = _parallel(half_turn, COLUMNS)
    print(f"\nparallel, {VIEWS} views of {COLUMNS} columns: RMS error within {INSIDE:g} mm, where the skull is 1")
    _beside_peers(geometry, sinogram, 200.0, (half_turn, sinogram))

    full_turn = np.arange(2 * VIEWS) * (math.pi / VIEWS)
    fan = ScanGeometry(
        beam=Beam.FAN,
        detector=_detector(COLUMNS, COLUMN * DISTANCE / SOURCE),
        angles=full_turn,
        axial=np.zeros(full_turn.size),
        source_to_isocenter=SOURCE,
        source_to_detector=DISTANCE,
    )
    tilt = np.arctan(offsets / SOURCE)
    measured = shepp_logan.line_integrals(full_turn[:, None] - tilt[None, :], SOURCE * np.sin(tilt)[None, :])
    reach = math.floor(SOURCE * math.sin(tilt[-1]) / COLUMN)
    resorted = _resorted(measured, half_turn, np.arange(-reach, reach + 1) * COLUMN)
    print(f"fan, {full_turn.size} views of {COLUMNS} columns; the peers have none on a CPU and get it resorted")
    _beside_peers(fan, measured, 195.0, (half_turn, resorted))


def _beside_peers(geometry: ScanGeometry, views: Image, field: float, parallel: tuple[Image, Image]) -> None:
    """Print our error and the peers', each pair on one grid."""
    angles, sinogram = parallel
    ours, matrix = _fbp(geometry, views, matrix=256, field_of_view=field), 256
    own = _error(ours, field / matrix)
    print(f"  ours, {matrix}x{matrix} pixels of {field / matrix:.3f} mm: {own:.5f}")
    if recon_peers.has("astra"):
        errors = {
            name: _error(recon_peers.astra_fbp(sinogram, angles, COLUMN, matrix, field, projector=name), field / matrix)
            for name in recon_peers.ASTRA_PROJECTORS
        }
        print("  ASTRA FBP: " + ", ".join(f"{name} {error:.5f}" for name, error in errors.items()))
        ratio = own / min(errors.values())
        print(f"  ratio to the best of ASTRA: {ratio:.3f}; {_held(ratio, GOAL_ERROR)}")
    if recon_peers.has("skimage"):
        matrix = sinogram.shape[1]
        own = _error(_fbp(geometry, views, matrix=matrix, field_of_view=matrix * COLUMN), COLUMN)
        other = _error(recon_peers.iradon(sinogram, angles, COLUMN), COLUMN)
        ratio = own / other
        print(f"  on the {matrix}x{matrix} pixels of scikit-image, {COLUMN:.3f} mm: ours {own:.5f}, iradon {other:.5f}")
        print(f"  ratio to scikit-image: {ratio:.3f}; {_held(ratio, GOAL_ERROR)}")


def _detector(columns: int, spacing: float) -> Detector:
    middle = (columns - 1) / 2
    return Detector(
        rows=1, columns=columns, row_spacing=1.0, column_spacing=spacing, central_row=0.0, central_column=middle
    )


def _parallel(angles: Image, columns: int) -> ScanGeometry:
    detector = _detector(columns, COLUMN)
    return ScanGeometry(beam=Beam.PARALLEL, detector=detector, angles=angles, axial=np.zeros(angles.size))


def _fbp(geometry: ScanGeometry, views: Image, **options: object) -> Image:
    """Reconstruct views [view, column] to a picture [y, x]."""
    return _reconstructed(geometry, views, Options(**options))


def _reconstructed(geometry: ScanGeometry, views: Image, options: Options) -> Image:
    planned = plan(geometry, options)
    method = iterative if options.method is Method.ITERATIVE else filtered_backprojection
    stack = views[:, None, :]
    volume = method(lambda first, stop: stack[first:stop], geometry, planned.grid, options, lambda _: None)
    return slices_of(volume)[0]


def _error(picture: Image, pixel: float) -> float:
    """Return the RMS difference from the head."""
    matrix = len(picture)
    place = (np.arange(matrix) - (matrix - 1) / 2) * pixel
    inside = np.hypot(place[:, None], place[None, :]) < INSIDE
    return float(np.sqrt(np.mean((picture - shepp_logan.pixels(matrix, pixel))[inside] ** 2)))


def _resorted(fan: Image, angles: Image, offsets: Image) -> Image:
    """Resort a full turn of a fan to half a turn of parallel rays, linearly; each is the mean of the two that it is."""
    views, columns = fan.shape
    around = np.concatenate([fan, fan[:1]])
    total = np.zeros((angles.size, offsets.size))
    for turned, places in ((0.0, offsets), (math.pi, -offsets)):
        tilt = np.arcsin(places / SOURCE)
        view = np.mod((angles[:, None] + turned + tilt[None, :]) * (views / (2 * math.pi)), views)
        column = np.broadcast_to((columns - 1) / 2 + SOURCE * np.tan(tilt) / COLUMN, view.shape)
        row, left = np.minimum(view.astype(int), views - 1), np.clip(column.astype(int), 0, columns - 2)
        down, right = view - row, column - left
        total += (1 - down) * ((1 - right) * around[row, left] + right * around[row, left + 1])
        total += down * ((1 - right) * around[row + 1, left] + right * around[row + 1, left + 1])
    return (total / 2).astype(np.float32)


# A cone


def _cone() -> None:
    with tempfile.TemporaryDirectory() as place:
        app = Path(place)
        (app / "input").mkdir()
        _make_cone(app / "input")
        (scanned,) = open_inputs(app / "input", InputOptions())
        views = scanned.read(0, CONE_VIEWS)
        planned = plan(scanned.geometry, CONE_OPTIONS)
        grid = planned.grid
        print(
            f"\ncone, {CONE_VIEWS} views of {CONE_COLUMNS}x{CONE_ROWS}, {grid.slices} slices of"
            f" {grid.matrix}x{grid.matrix}; the files are RTK's"
        )
        peer = app / "rtkfdk.mhd"
        fdk = [
            *(str(_command("rtkfdk")), "-p", str(app / "input"), "-r", r"projections\.mhd", "-o", str(peer)),
            *("-g", str(app / "input/projections.xml"), "--dimension", f"{grid.matrix},{grid.slices},{grid.matrix}"),
            *("--spacing", f"{grid.pixel},{grid.thickness},{grid.pixel}"),
            f"--origin={grid.edge},{grid.first},{grid.edge}",  # it begins with a minus
        ]
        stage = [
            *("--patient-position", "HFS", "--water-mu", "1", "--matrix", f"{CONE_OPTIONS.matrix}"),
            *("--fov", f"{CONE_OPTIONS.field_of_view}", "--slice-thickness", f"{CONE_OPTIONS.slice_thickness}"),
        ]
        own: list[tuple[float, float]] = []
        other: list[tuple[float, float]] = []
        for _ in range(TURNS):
            own.append(_run_stage(app, stage))
            other.append(_run(fdk, {}))
        _print_difference(views, scanned.geometry, read_volume(peer))
    for name, turns in (("stage recon", own), ("rtkfdk", other)):
        seconds = [spent for spent, _ in turns]
        print(
            f"  {name:12} median {statistics.median(seconds):.1f} s of {TURNS}"
            f" (from {min(seconds):.1f} to {max(seconds):.1f}), peak memory {max(peak for _, peak in turns):.2f} GiB"
        )
    ratio = statistics.median(spent for spent, _ in own) / statistics.median(spent for spent, _ in other)
    print(f"  ratio of the whole processes: {ratio:.2f}; {_held(ratio, GOAL_CONE_TIME)}")


def _make_cone(folder: Path) -> None:
    """Let RTK project its phantom, and write its geometry."""
    geometry = str(folder / "projections.xml")
    for command in (
        (
            *("rtksimulatedgeometry", "-n", str(CONE_VIEWS), "-o", geometry),
            *("--sid", str(CONE_SOURCE), "--sdd", str(CONE_DISTANCE)),
        ),
        (
            *("rtkprojectshepploganphantom", "-g", geometry, "-o", str(folder / "projections.mhd")),
            *("--phantomscale", "100", "--spacing", f"{CONE_SPACING},{CONE_SPACING},1"),
            *("--dimension", f"{CONE_COLUMNS},{CONE_ROWS},{CONE_VIEWS}"),
        ),
    ):
        name, *words = command
        subprocess.run([_command(name), *words], check=True, capture_output=True)


def _command(name: str) -> Path:
    """Return a program that lies beside this Python."""
    return Path(sys.executable).parent / name


def _print_difference(views: Image, geometry: ScanGeometry, peer: Volume) -> None:
    """Compare the volumes before they become Hounsfield units, and the times within this process."""
    planned = plan(geometry, CONE_OPTIONS)
    started = time.perf_counter()
    image = filtered_backprojection(
        lambda first, stop: views[first:stop], geometry, planned.grid, CONE_OPTIONS, lambda _: None
    )
    ours = time.perf_counter() - started
    volume = slices_of(image)
    # RTK's array is [-y, z, x].
    theirs = np.asarray(peer.array)[::-1].transpose(1, 0, 2)
    difference = float(np.sqrt(np.mean((volume - theirs) ** 2, dtype=float) / np.mean(theirs**2, dtype=float)))
    print(f"  relative RMS difference of the volumes: {difference:.1e}; {_held(difference, GOAL_CONE_DIFFERENCE)}")
    started = time.perf_counter()
    _whole_fdk(views, geometry, image)
    print(
        f"  filters and backprojection in one process: ours {ours:.1f} s, RTK's {time.perf_counter() - started:.1f} s"
    )


def _whole_fdk(views: Image, geometry: ScanGeometry, like: object) -> None:
    """Reconstruct as rtkfdk does, from views in memory."""
    kit = toolkit()
    detector = geometry.detector
    image = kit.arrays.GetImageViewFromArray(views)
    image.SetSpacing([detector.column_spacing, detector.row_spacing, 1.0])
    image.SetOrigin(
        [-detector.central_column * detector.column_spacing, -detector.central_row * detector.row_spacing, 0.0]
    )
    circle = scan(geometry)
    empty = kit.rtk.ConstantImageSource[kit.image].New()
    empty.SetInformationFromImage(like.view)
    displaced = kit.rtk.DisplacedDetectorForOffsetFieldOfViewImageFilter[kit.image].New(Input=image, Geometry=circle)
    short = kit.rtk.ParkerShortScanImageFilter[kit.image].New(Input=displaced.GetOutput(), Geometry=circle)
    short.InPlaceOff()
    fdk = kit.rtk.FDKConeBeamReconstructionFilter[kit.image].New()
    fdk.SetInput(0, empty.GetOutput())
    fdk.SetInput(1, short.GetOutput())
    fdk.SetGeometry(circle)
    fdk.SetProjectionSubsetSize(16)
    fdk.Update()


def _run_stage(app: Path, words: list[str]) -> tuple[float, float]:
    """Run the stage on `input` as a runner would; return its seconds and its peak memory in GiB."""
    for folder in ("output", "locks"):
        shutil.rmtree(app / folder, ignore_errors=True)
        (app / folder).mkdir()
    names = {"STAGENAME": "recon", "JOBID": "bench", "APPDIR": str(app), "INPUTS": "input", "OUTPUTS": "output"}
    names |= {"LOCKDIR": "locks", "LOCKNAME": "recon.lock", "RUNSIMPLE": "TRUE"}
    contract = {f"NVIDIA_CLARA_{name}": value for name, value in names.items()}
    contract["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    return _run([sys.executable, "-m", "clara_wf.operators.recon", *words], contract)


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    os.sync()
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        child = os.posix_spawn(
            command[0],
            command,
            os.environ | environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), number) for number in (1, 2)],
        )
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - begin
        if status:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')}")
    return seconds, usage.ru_maxrss / 2**20


# A helix


def _helical() -> None:
    short, long = helical_scan(seen=(-20.0, 40.0)), helical_scan(720, seen=(-100.0, 160.0))
    peaks = [_helical_run(geometry, judge=geometry is short) for geometry in (short, long)]
    beside = max(peaks) - MEMORY_GIB
    print(f"  most beside the {MEMORY_GIB} GiB that were allowed: {beside:.2f} GiB; {_held(beside, GOAL_BESIDE_GIB)}")


def _helical_run(geometry: ScanGeometry, *, judge: bool) -> float:
    """Scan and reconstruct rods in water; return the stage's peak memory in GiB."""
    detector = geometry.detector
    turns = geometry.span / (2 * math.pi)
    size = geometry.views * detector.rows * detector.columns * 4 / 2**30
    print(
        f"\nhelix, {geometry.views} views of {detector.columns}x{detector.rows} ({size:.2f} GiB), {turns:.1f} turns"
        f" at a pitch of {geometry.pitch:.2f}, --memory {MEMORY_GIB}"
    )
    with tempfile.TemporaryDirectory() as place:
        app = Path(place)
        (app / "input").mkdir()
        write_projection_volume(app / "input", acquisition(inserts(), geometry))
        seconds, peak = _run_stage(app, ["--memory", str(MEMORY_GIB)])
        volume = read_volume(app / "output/recon.mhd")
        slices, rows, columns = volume.array.shape
        print(
            f"  stage recon: {seconds:.1f} s, peak memory {peak:.2f} GiB, {slices} slices of {rows}x{columns},"
            f" {seconds / slices * 1000:.0f} ms a slice"
        )
        if judge:
            _print_inserts(volume)
            _print_beads(volume)
    return peak


def _print_inserts(volume: Volume) -> None:
    """Print how far each rod's mean is from its density, in the worst slice, and its noise."""
    _, y, x = _coordinates(volume)
    for insert in INSERTS:
        core = np.hypot(x[None, :] - insert.centre[0], y[:, None] - insert.centre[1]) < 0.7 * insert.radius
        values = np.asarray(volume.array)[:, core].astype(float)
        errors = values.mean(axis=1) - insert.hu
        print(
            f"  {insert.name:6} {insert.hu:6.0f} HU: error {values.mean() - insert.hu:+6.1f}, in the worst slice"
            f" {errors[np.abs(errors).argmax()]:+6.1f}, scatter {values.std(axis=1).mean():5.1f}"
        )


def _print_beads(volume: Volume) -> None:
    """Print how far each bead's centre of mass is from its place."""
    z, y, x = _coordinates(volume)
    for bead in BEADS:
        near = [
            np.flatnonzero(np.abs(places - middle) < 2 * bead.radius)
            for places, middle in zip((z, y, x), reversed(bead.centre), strict=True)
        ]
        mass = np.maximum(np.asarray(volume.array)[np.ix_(*near)].astype(float) + 1000, 0)
        mass[mass < 0.25 * mass.max()] = 0
        axes = (z[near[0]][:, None, None], y[near[1]][None, :, None], x[near[2]][None, None, :])
        found = [float((mass * places).sum() / mass.sum()) for places in axes]
        wrong = [place - truth for place, truth in zip(found[::-1], bead.centre, strict=True)]
        print(
            f"  bead {bead.name}: {math.hypot(*wrong):.2f} mm beside its place"
            f" ({', '.join(f'{name} {off:+.2f}' for name, off in zip('xyz', wrong, strict=True))})"
        )


def _coordinates(volume: Volume) -> list[Image]:
    """Return the mm along z, y and x of an upright volume's voxels."""
    geometry = volume.geometry
    return [
        origin + np.arange(count) * step
        for origin, count, step in zip(reversed(geometry.origin), geometry.shape, geometry.spacing, strict=True)
    ]


# Few views


def _few() -> None:
    angles = np.arange(FEW_VIEWS) * (math.pi / FEW_VIEWS)
    offsets = (np.arange(COLUMNS) - COLUMNS // 2) * COLUMN
    sinogram = shepp_logan.line_integrals(angles[:, None], offsets[None, :])
    geometry, field = _parallel(angles, COLUMNS), COLUMNS * COLUMN
    print(f"\nparallel, {FEW_VIEWS} views of {COLUMNS} columns: RMS error within {INSIDE:g} mm, where the skull is 1")

    def error(picture: Image) -> float:
        return _error(picture, COLUMN)

    options = Options(matrix=COLUMNS, field_of_view=field)
    with _timed() as plain:
        errors = {"our FBP": error(_reconstructed(geometry, sinogram, options))}
    print(f"  our FBP {errors['our FBP']:.5f} ({plain():.1f} s)")
    options = replace(options, method=Method.ITERATIVE)
    with _timed() as spent:
        own = error(_reconstructed(geometry, sinogram, options))
    print(f"  our iterative method, {options.iterations} iterations: {own:.5f} ({spent():.1f} s)")
    peers: dict[str, tuple[str, Callable[[], Iterator[tuple[int, Image]]]]] = {
        "ASTRA's SIRT": ("astra", lambda: recon_peers.astra_sirt(sinogram, angles, COLUMN, COLUMNS, field)),
        "scikit-image's SART": ("skimage", lambda: recon_peers.sart(sinogram, angles, COLUMN)),
    }
    for name, (module, pictures) in peers.items():
        if recon_peers.has(module):
            with _timed() as spent:
                errors[name], iterations = recon_peers.best(pictures(), error)
            print(f"  {name}, best after {iterations} iterations: {errors[name]:.5f} ({spent():.1f} s for all)")
    for name, other in errors.items():
        print(f"  ratio of the iterative method to {name}: {own / other:.2f}; {_held(own / other, GOAL_ERROR)}")


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    started = time.perf_counter()
    ended = started
    yield lambda: ended - started
    ended = time.perf_counter()


# Speed of one parallel slice


def _speed() -> None:
    views, columns, matrix, slices = 720, 736, 512, 64
    angles = np.arange(views) * (math.pi / views)
    offsets = (np.arange(columns) - (columns - 1) / 2) * (COLUMN / 3)
    sinogram = shepp_logan.line_integrals(angles[:, None], offsets[None, :])
    print(f"\nspeed: {matrix}x{matrix} from {views} views of {columns} columns, parallel, ms a slice, best of {TURNS}")
    field = matrix * COLUMN / 3
    detector = replace(_detector(columns, COLUMN / 3), row_spacing=COLUMN / 3)
    for count in (1, slices):
        rows = replace(detector, rows=count, central_row=(count - 1) / 2)
        geometry = ScanGeometry(beam=Beam.PARALLEL, detector=rows, angles=angles, axial=np.zeros(views))
        planned = plan(geometry, Options(matrix=matrix, field_of_view=field))
        stack = np.repeat(sinogram[:, None, :], count, axis=1)

        def ours(stack: Image = stack, planned: object = planned) -> None:
            filtered_backprojection(
                lambda first, stop: stack[first:stop], planned.geometry, planned.grid, planned.options, lambda _: None
            )

        print(f"  ours on RTK, {planned.grid.slices} at once: {_best_ms(ours) / planned.grid.slices:.0f}")
    if recon_peers.has("astra"):
        for name in recon_peers.ASTRA_PROJECTORS:
            spent = _best_ms(lambda: recon_peers.astra_fbp(sinogram, angles, COLUMN / 3, matrix, field, projector=name))  # noqa: B023
            print(f"  ASTRA FBP, {name}: {spent:.0f}")
    if recon_peers.has("skimage"):
        print(
            f"  scikit-image's iradon: {_best_ms(lambda: recon_peers.iradon(sinogram, angles, COLUMN / 3, matrix)):.0f}"
        )


def _best_ms(work: Callable[[], object]) -> float:
    found = []
    for _ in range(TURNS):
        started = time.perf_counter()
        work()
        found.append((time.perf_counter() - started) * 1000)
    return min(found)


if __name__ == "__main__":
    main()

"""Read a CT series of 500 slices of 512x512: the stage `dicom-reader` against dcm2niix and SimpleITK, in one run.

Each is a process of its own that reads the same folder and writes an uncompressed volume; they take turns, so that what
else the machine does touches all alike. The files are in the page cache. Prints medians, the ratio to the faster peer,
and peak memory. dcm2niix is left out where it is not installed.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SLICES, SIDE, TURNS = 500, 512, 9
GOAL_RATIO = 1.0
SIMPLEITK = """
import sys, SimpleITK as sitk
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
sitk.WriteImage(reader.Execute(), sys.argv[2] + "/volume.mhd")
"""


def make_series(folder: Path) -> None:
    """Write the series: a moving gradient with noise, as 12 stored bits in 16."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    rows, columns = np.indices((SIDE, SIDE))
    noise = np.random.default_rng(1).integers(0, 50, (SIDE, SIDE))
    for index in range(SLICES):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"1.2.840.1.{index + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
        image.PatientName, image.PatientID, image.Modality = "Bench^Mark", "1", "CT"
        image.ImageType, image.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], "none"
        image.StudyDate = image.SeriesDate = image.AcquisitionDate = "20200101"
        image.StudyTime = image.SeriesTime = image.AcquisitionTime = "101010"
        image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = 1, 1, index + 1
        image.ImagePositionPatient, image.ImageOrientationPatient = [-200, -200, index - 300], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness, image.KVP = [0.8, 0.8], 1, 120
        image.Rows = image.Columns = SIDE
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
        image.PixelData = ((rows + columns + index) % 2000 + noise).astype("<u2").tobytes()
        image.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a process; return its seconds and its peak memory in MB."""
    begin = time.perf_counter()
    child = os.posix_spawn(
        command[0],
        command,
        os.environ | environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)],
    )
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - begin
    if status:
        sys.exit(f"{command[0]} failed")
    return seconds, usage.ru_maxrss / 1024


def stage_environment(app: Path) -> dict[str, str]:
    """Return the stage contract's variables."""
    names = {"STAGENAME": "dicom-reader", "JOBID": "bench", "APPDIR": str(app), "INPUTS": "input", "OUTPUTS": "output"}
    names |= {"LOCKDIR": "locks", "LOCKNAME": "reader.lock", "RUNSIMPLE": "TRUE"}
    source = str(Path(__file__).parents[1] / "src")
    return {f"NVIDIA_CLARA_{name}": value for name, value in names.items()} | {"PYTHONPATH": source}


def measure(app: Path, tools: dict[str, tuple[list[str], dict[str, str]]]) -> dict[str, list[tuple[float, float]]]:
    """Let the tools take turns; return seconds and memory of each turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in tools}
    for turn in range(TURNS + 1):
        for name, (command, environment) in tools.items():
            for folder in ("output", "locks"):
                shutil.rmtree(app / folder, ignore_errors=True)
                (app / folder).mkdir()
            os.sync()
            measured = run(command, environment)
            if turn:  # the first warms up
                found[name].append(measured)
    return found


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        app = Path(place)
        (app / "input").mkdir()
        make_series(app / "input")
        output = str(app / "output")
        tools = {
            "clara-wf": ([sys.executable, "-m", "clara_wf.operators.dicom_reader"], stage_environment(app)),
            "SimpleITK": ([sys.executable, "-c", SIMPLEITK, str(app / "input"), output], {}),
        }
        if dcm2niix := shutil.which("dcm2niix"):
            tools["dcm2niix"] = ([dcm2niix, "-z", "n", "-b", "n", "-o", output, str(app / "input")], {})
        found = measure(app, tools)
    volume = SLICES * SIDE * SIDE * 2 / 2**20
    print(f"{SLICES} slices of {SIDE}x{SIDE}, {volume:.0f} MB, {len(os.sched_getaffinity(0))} cores, {TURNS} turns")
    if "dcm2niix" not in tools:
        print("dcm2niix is not installed: the ratio is to SimpleITK alone")
    medians = {}
    for name, turns in found.items():
        seconds = [spent for spent, _ in turns]
        memory = max(peak for _, peak in turns)
        medians[name] = statistics.median(seconds)
        print(
            f"{name:10} median {medians[name]:.3f} s  best {min(seconds):.3f} s"
            f"  peak memory {memory:.0f} MB ({memory / volume:.2f}x the volume)"
        )
    peer = min((name for name in medians if name != "clara-wf"), key=medians.__getitem__)
    pairs = [own[0] / other[0] for own, other in zip(found["clara-wf"], found[peer], strict=True)]
    ratio = medians["clara-wf"] / medians[peer]
    print(f"ratio of medians to {peer}, the faster peer: {ratio:.2f}")
    print(f"goal: at most {GOAL_RATIO}: {'held' if ratio <= GOAL_RATIO else 'NOT held'}")
    print(f"median of the ratios turn by turn: {statistics.median(pairs):.2f}")


if __name__ == "__main__":
    main()

"""Small DICOM folders, made by pydicom: the reader's own code has no part in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clara_wf.imaging.dicom_reader import ReadReport, read_folder
from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.record import VolumeRecord, read_record

STUDY, SERIES, FRAME = "1.2.840.99.1", "1.2.840.99.2", "1.2.840.99.3"


class Folder:
    """A folder that a test fills with DICOM files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True)
        self._count = 0

    def image(self, pixels: np.ndarray | None = None, **changes: Any) -> Dataset:
        """Make a CT image of 5 x 6 pixels; `changes` are attributes, None takes one away."""
        self._count += 1
        pixels = self.pixels(self._count) if pixels is None else pixels
        image = Dataset()
        image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = f"{SERIES}.{self._count}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = STUDY, SERIES, FRAME
        image.PatientName, image.PatientID, image.PatientBirthDate = "MARKERNAME^X", "MARKERID", "19661224"
        image.Modality, image.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.StudyDate, image.InstanceNumber = "20200102", 1000 - self._count
        image.ImagePositionPatient, image.ImageOrientationPatient = [-10, 20, self._count * 2.5], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [0.75, 0.5], 2.5
        image.Rows, image.Columns = pixels.shape[-2:]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = pixels.dtype.itemsize * 8
        image.BitsStored = changes.get("BitsStored", image.BitsAllocated)
        image.HighBit = image.BitsStored - 1
        image.PixelRepresentation = int(pixels.dtype.kind == "i")
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.PixelData = pixels.tobytes()
        image["PixelData"].VR = "OW"
        for keyword, value in changes.items():
            if value is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, value)
        return image

    @staticmethod
    def pixels(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 4096, (5, 6), dtype="<u2")

    def save(self, name: str, image: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
        """Write a file; a big-endian one must be given big-endian pixels."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.preamble = b"\0" * 128
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = syntax
        image.file_meta.MediaStorageSOPClassUID = image.get("SOPClassUID", "1.2.3")
        image.file_meta.MediaStorageSOPInstanceUID = image.get("SOPInstanceUID") or "1.2.3"
        little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        with pydicom.config.disable_value_validation():
            pydicom.dcmwrite(
                path, image, little_endian=little, implicit_vr=implicit, enforce_file_format=False, overwrite=False
            )
        return path

    def add(self, name: str, pixels: np.ndarray | None = None, **changes: Any) -> Path:
        """Write a CT slice."""
        return self.save(name, self.image(pixels, **changes))

    def add_slices(self, places: list[float], prefix: str = "", **changes: Any) -> None:
        """Write a slice at each z; the names do not follow the places."""
        for number, z in enumerate(places):
            name = f"{prefix}{(number * 7919) % 997:03d}"
            self.add(name, **({"ImagePositionPatient": [-10, 20, z]} | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder to be filled."""
    return Folder(tmp_path / "input")


class Result:
    """What a reader made, as a stage after it would see it."""

    def __init__(self, output: Path, report: ReadReport | None) -> None:
        self.output = output
        self.report = report
        self.content: dict[str, Any] = json.loads((output / "series.json").read_text())
        assert self.content["counts"]["files"] == len(self.content["files"])
        assert Counter(file["state"] for file in self.content["files"]) == {
            state: count for state, count in self.content["counts"].items() if state != "files"
        }

    @property
    def states(self) -> dict[str, str]:
        return {file["path"]: file["state"] for file in self.content["files"]}

    @property
    def reasons(self) -> dict[str, str]:
        return {file["path"]: file["reason"] for file in self.content["files"]}

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.output.glob("*.mhd"))

    def volume(self, name: str = f"{SERIES}.mhd") -> Any:
        return read_volume(self.output / name)

    def record(self, name: str = f"{SERIES}.mhd") -> VolumeRecord:
        record = read_record(self.output / name)
        assert record is not None
        return record


@pytest.fixture
def read(folder: Folder, tmp_path: Path) -> Callable[..., Result]:
    """Read the folder; the second time into a new output."""

    def run(path: Path | None = None, **options: Any) -> Result:
        output = tmp_path / f"output{len(list(tmp_path.iterdir()))}"
        output.mkdir()
        return Result(output, read_folder(path or folder.path, output, **options))

    return run


@pytest.fixture
def refuse(folder: Folder, tmp_path: Path) -> Callable[..., tuple[Exception, Result]]:
    """Read the folder, which must fail; return the error and what was written all the same."""

    def run(kind: type[Exception], match: str, **options: Any) -> tuple[Exception, Result]:
        output = tmp_path / "refused"
        output.mkdir()
        with pytest.raises(kind, match=match) as caught:
            read_folder(folder.path, output, **options)
        assert "\n" not in str(caught.value)
        assert not any(word in str(caught.value) for word in ("MARKER", "19661224"))
        assert sorted(path.name for path in output.iterdir()) == ["series.json"]
        return caught.value, Result(output, None)

    return run

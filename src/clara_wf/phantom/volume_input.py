"""A phantom as the volumes that stages hand on: MetaImage with a record beside it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from clara_wf import __version__
from clara_wf.imaging.metaimage import write_volume
from clara_wf.imaging.record import Algorithm, Code, Label, SourceSeries, Verdict, VolumeRecord, write_record
from clara_wf.model.files import write_atomically
from clara_wf.phantom.dicom_series import source_series
from clara_wf.phantom.patient import Phantom

#: What the values of a phantom's labels mean: named and coded as the liver networks' descriptions do.
LABELS = (
    Label(
        value=1,
        name="liver",
        category=Code(value="123037004", scheme="SCT", meaning="Anatomical Structure"),
        type=Code(value="10200004", scheme="SCT", meaning="Liver"),
        color=(221, 130, 101),
    ),
    Label(
        value=2,
        name="liver tumour",
        category=Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"),
        type=Code(value="4147007", scheme="SCT", meaning="Mass"),
        color=(255, 209, 60),
    ),
)


@cache
def generator_sha256() -> str:
    """Return the SHA-256 of this package's source: it changes whenever the phantom may have changed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def write_volume_input(folder: Path, phantom: Phantom, *, name: str = "recon") -> Path:
    """Write the image as a reader or a reconstruction would: `<name>.mhd`, `.raw`, `.json`.

    Its record refers to the DICOM series that `write_ct_series` makes of the same image and seed, so that a writer
    can make a SEG for it.

    Returns
    -------
    Path
        The header.
    """
    source = source_series(phantom.image, seed=phantom.truth.seed)
    header = folder / f"{name}.mhd"
    write_record(header, VolumeRecord(kind="image", modality="CT", units="HU", source=source))
    write_volume(header, phantom.image)
    return header


def write_labels_input(folder: Path, phantom: Phantom, *, name: str = "recon.seg") -> Path:
    """Write the true labels as a segmenting stage would: `<name>.mhd`, `.raw`, `.json`; return the header."""
    header = folder / f"{name}.mhd"
    write_record(header, _labels_record(phantom, source_series(phantom.image, seed=phantom.truth.seed)))
    write_volume(header, phantom.labels)
    return header


def write_truth(folder: Path, phantom: Phantom) -> None:
    """Write what a result is compared with: `liver.mhd` (0, 1 liver, 2 tumour) and `truth.json` (numbers, LPS mm)."""
    write_labels_input(folder, phantom, name="liver")
    write_atomically(folder / "truth.json", json.dumps(phantom.truth.to_json(), indent=2) + "\n")


def _labels_record(phantom: Phantom, source: SourceSeries) -> VolumeRecord:
    present = {
        name: region for name, region in phantom.truth.labels.items() if name in {label.name for label in LABELS}
    }
    return VolumeRecord(
        kind="labels",
        modality="CT",
        source=source,
        labels=tuple(label for label in LABELS if label.name in present),
        verdict=Verdict(status="ok" if present else "none", reasons=() if present else ("the phantom has no liver",)),
        algorithm=Algorithm(
            name="Truth of the procedural phantom", version=__version__, model="phantom", sha256=generator_sha256()
        ),
        measurements={
            name: {
                "volume_ml": region.volume_ml,
                "centroid_mm": list(region.centroid_mm),
                "mean_hu": region.mean_hu,
            }
            for name, region in present.items()
        },
    )

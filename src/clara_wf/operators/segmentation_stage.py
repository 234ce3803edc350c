"""What the segmenting stages have in common: volumes in, label maps with their records and pictures out.

Every volume of the input is tried, and one that cannot be labelled hides no other. `segmentation.json` says what became
of each.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import clara_wf
from clara_wf.imaging.metaimage import files_of, open_writer, read_volume
from clara_wf.imaging.preview import draw_preview
from clara_wf.imaging.record import Step, VolumeRecord, read_record, write_record
from clara_wf.imaging.volume import Volume
from clara_wf.inference.engine import Network
from clara_wf.inference.repository import InstalledModel
from clara_wf.inference.segment import Segmentation, Segmenter, UnsuitableVolume
from clara_wf.model.errors import InputError
from clara_wf.model.files import replacing, write_atomically
from clara_wf.stage import StageContext, main

SUMMARY = "segmentation.json"
SCHEMA = "clara-wf/segmentation/1"
_SUFFIX = ".seg.mhd"
Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a volume."""

    volume: str  # its file in the input
    status: str  # ok, review, none; refused: the model does not take it; failed: it could not be read or labelled
    reasons: tuple[str, ...] = ()  # a sentence each
    labels: str = ""  # the label map's file in the output
    measurements: Mapping[str, Mapping[str, object]] | None = None


def run_stage(*, default_model: str) -> NoReturn:
    """Be a stage that labels volumes, with the arguments below, and exit with its code."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--model", default=default_model, metavar="NAME", help="model of the repository (%(default)s)"
        )
        parser.add_argument(
            "--trtis-wait",
            type=_seconds,
            default=120.0,
            metavar="SECONDS",
            help="how long to wait for the inference server, and for the model there (%(default)g)",
        )
        parser.add_argument(
            "--trtis-timeout",
            type=_seconds,
            default=600.0,
            metavar="SECONDS",
            help="how long the inference server may take for a window (%(default)g)",
        )

    # The model is loaded while the stages before still work.
    main(prepare=load_segmenter, execute=label_volumes, cleanup=give_back, arguments=arguments)


def _seconds(text: str) -> float:
    """Read a number of seconds for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


@dataclass(kw_only=True)
class Told:
    """What the stage has said last of its work, so that a wait in the midst of it moves nothing back."""

    context: StageContext
    fraction: float = 0.0  # of the work that is done

    def progress(self, fraction: float, text: str) -> None:
        """Say how much is done, and what is being done."""
        self.fraction = fraction
        self.context.progress(fraction, text)

    def say(self, text: str) -> None:
        """Say what is being waited for."""
        self.context.progress(self.fraction, text)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A stage that is ready to work."""

    segmenter: Segmenter
    told: Told


def load_segmenter(context: StageContext) -> Loaded:
    """Load the model that the stage's arguments name: into this process, or at the inference server that is named.

    Raises
    ------
    ModelMissing, ModelDamaged, DescriptionError, EngineError
        See `Segmenter`.
    UsageError, LackError
        See `TritonNetwork`.
    """
    told = Told(context=context)
    root, name = context.model_repository, context.options.model
    if not context.trtis_uri:
        return Loaded(segmenter=Segmenter(root, name), told=told)
    from clara_wf.kserve.network import TritonNetwork

    def served(model: InstalledModel) -> Network:
        return TritonNetwork(
            context.trtis_uri,
            model,
            wait=context.options.trtis_wait,
            timeout=context.options.trtis_timeout,
            say=told.say,
            log=context.log,
        )

    return Loaded(segmenter=Segmenter(root, name, served), told=told)


def give_back(context: StageContext, loaded: Loaded) -> None:  # noqa: ARG001 - a cleanup's signature
    """Give back what the networks hold, here or at a server."""
    loaded.segmenter.close()


def label_volumes(context: StageContext, loaded: Loaded) -> None:
    """Label every volume of a stage's input that a model takes.

    Raises
    ------
    InputError
        There is no volume, or none that the model takes; the message says why not, volume by volume.
    """
    segmenter = loaded.segmenter
    paths = _volumes(context.inputs)
    outcomes: list[Outcome] = []
    told = []  # what became of each, as logs and messages may say it
    for index, path in enumerate(paths):
        place = _place(index, len(paths))

        def progress(fraction: float, text: str, index: int = index, place: str = place) -> None:
            loaded.told.progress((index + fraction) / len(paths), f"{text} ({place})" if len(paths) > 1 else text)

        try:
            outcomes.append(_label(context, segmenter, path, progress))
        except UnsuitableVolume as fault:
            outcomes.append(Outcome(volume=path.name, status="refused", reasons=(str(fault),)))
        except InputError as fault:
            outcomes.append(Outcome(volume=path.name, status="failed", reasons=(str(fault),)))
        told.append("; ".join(_nameless(reason, path, place) for reason in outcomes[-1].reasons))
        context.log.info("%s: %s", place, "; ".join(filter(None, (outcomes[-1].status, told[-1]))))
    summary = {"schema": SCHEMA, "model": segmenter.model.name, "volumes": [asdict(outcome) for outcome in outcomes]}
    write_atomically(context.output_folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    if not any(outcome.labels for outcome in outcomes):
        model = f"the model {segmenter.model.name}"
        if len(paths) == 1:
            raise InputError(f"{model} does not take the volume: {told[0]}")
        faults = "; ".join(f"{_place(index, len(paths))}: {text}" for index, text in enumerate(told))
        raise InputError(f"{model} takes none of {len(paths)} volumes: {faults}")
    context.progress(1.0, "done")


def _place(index: int, count: int) -> str:
    """Name a volume by its place in the input's order: its file may be named after a patient, or by a long UID."""
    return f"volume {index + 1} of {count}" if count > 1 else "the volume"


def _nameless(reason: str, path: Path, place: str) -> str:
    """Put a volume's place where a reason names one of its files."""
    return re.sub(rf"(?<![\w.-]){re.escape(path.stem)}\.(mhd|raw|zraw|json)\b", rf"\1 of {place}", reason)


def _volumes(inputs: Path) -> list[Path]:
    """Return the volumes of a folder, without label maps, or the one that a file's name says."""
    if inputs.is_file():
        return [inputs]
    if not inputs.is_dir():
        raise InputError(f"there is no input {inputs.name}", remedy="See what the stage before wrote")
    found = sorted(path for path in inputs.glob("*.mhd") if not path.name.endswith(_SUFFIX))
    if not found:
        raise InputError("there is no volume (*.mhd) in the input", remedy="See what the stage before wrote")
    return found


def _label(context: StageContext, segmenter: Segmenter, path: Path, progress: Progress) -> Outcome:
    """Label a volume and write its label map, record and picture."""
    started = datetime.now(UTC)
    record = read_record(path) or VolumeRecord(kind="image")
    if record.kind != "image":
        raise UnsuitableVolume(f"it holds {record.kind}, not an image")
    volume = read_volume(path)
    segmenter.check(volume, record.modality)
    output = _output(context, path)
    with open_writer(output, volume.geometry, "u1") as labels:
        # Without a record nothing says HU; the field-of-view check tells where the values are none.
        result = segmenter.segment(volume, labels, units=record.units or "HU", progress=progress)
        done = _record(context, record, result, started)
        picture = draw_preview(
            volume,
            Volume(geometry=volume.geometry, array=labels),
            result.labels,
            verdict=result.verdict,
            title=f"{result.algorithm.model} {result.algorithm.version}",
        )
        write_record(output, done)
        write_atomically(output.with_suffix(".preview.png"), picture)
    if record.source is not None and not record.source.exists:
        _hand_on(path, output.parent)
    return Outcome(
        volume=path.name,
        status=result.verdict.status,
        reasons=result.verdict.reasons,
        labels=output.name,
        measurements=result.measurements,
    )


def _hand_on(path: Path, folder: Path) -> None:
    """Put a reconstruction beside its labels: its images are in no archive yet, and the labels refer to them."""
    # The header last: who sees it finds the rest.
    for file in reversed(files_of(path)):
        target = folder / file.name
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(file)
        except OSError:  # another disk, or one without hard links
            with replacing(target) as temporary:
                shutil.copyfile(file, temporary)


def _output(context: StageContext, path: Path) -> Path:
    """Return where the labels go: ``<name>.seg.mhd``, or what OUTPUTS names if that is a file."""
    outputs = context.outputs
    if outputs.suffix == ".mhd" and not outputs.is_dir():
        return outputs
    return context.output_folder / f"{path.stem}{_SUFFIX}"


def _record(context: StageContext, source: VolumeRecord, result: Segmentation, started: datetime) -> VolumeRecord:
    """Say what the labels mean and what was done, beside what is known of the source."""
    step = Step(
        stage=context.stage,
        version=clara_wf.__version__,
        started=started.isoformat(timespec="milliseconds"),
        ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
        detail={f"{name}_s": seconds for name, seconds in result.seconds.items()} | {"engine": result.algorithm.engine},
    )
    return replace(
        source,
        kind="labels",
        units="",
        labels=result.labels,
        verdict=result.verdict,
        algorithm=result.algorithm,
        measurements=result.measurements,
        provenance=(*source.provenance, step),
    )

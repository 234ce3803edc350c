"""From a volume to labels: the whole way through one network, or through an organ's and then the one for its inside.

The way: look what is in view, lay the network's grid over it, filter and scale, ask, drop what is no part of the organ,
judge, and put the labels back onto exactly the volume's own grid.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.measure import Measurer
from clara_wf.imaging.record import Algorithm, Label, Verdict
from clara_wf.imaging.volume import Volume
from clara_wf.inference.description import DescriptionError, ModelDescription
from clara_wf.inference.edge import cut_off
from clara_wf.inference.engine import Network, OpenVinoNetwork
from clara_wf.inference.fieldofview import View, look
from clara_wf.inference.plausibility import judge
from clara_wf.inference.postprocess import clean, label_slices, winners
from clara_wf.inference.preprocess import network_grid, scaled, values_on_grid
from clara_wf.inference.repository import InstalledModel, check_chain, find_model, verify
from clara_wf.inference.resample import canonical_grid, grid_of_box, resample
from clara_wf.inference.stepwise import label_stepwise
from clara_wf.inference.windows import infer
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
#: A voxel with its neighbours across faces and edges.
_NEAR = ndimage.generate_binary_structure(3, 2)


class UnsuitableVolume(InputError):
    """A model does not take this volume; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What became of a volume."""

    verdict: Verdict
    labels: tuple[Label, ...]  # what the values of the label map mean
    algorithm: Algorithm
    measurements: Mapping[str, Mapping[str, object]]  # by label name, see Measurer.result
    seconds: Mapping[str, float]  # of each part of the work


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a network said, on its own grid."""

    description: ModelDescription
    verdict: Verdict
    grid: VolumeGeometry | None = None  # None: it was not asked
    scores: Floats | None = None  # [channel, ...], cleaned


@dataclass(kw_only=True)
class _Clock:
    """Where the time goes."""

    _seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    @property
    def seconds(self) -> dict[str, float]:
        """By what they went to; rounded here alone, since a lap may be shorter than what is shown."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}


def embedded(model: InstalledModel) -> Network:
    """Return a model's network in this process's engine, once its file is known to be the installed one."""
    verify(model)
    return OpenVinoNetwork(model.file, precision=model.description.precision)


class Segmenter:
    """A model of the repository, loaded and ready.

    Parameters
    ----------
    root : Path
        The model repository.
    name : str
        Of the model; the models that it needs are loaded as well.
    networks : callable
        Gives a model's network: by default the embedded engine's.

    Raises
    ------
    ModelMissing, ModelDamaged, DescriptionError, EngineError
        See `find_model`, `verify` and `OpenVinoNetwork`.
    """

    def __init__(self, root: Path, name: str, networks: Callable[[InstalledModel], Network] = embedded) -> None:
        self._model = find_model(root, name)
        check_chain(self._model)
        within = self._model.description.within
        self._organ = Segmenter(root, within.model, networks) if within else None
        with contextlib.ExitStack() as failed:
            # What the organ's network holds must not outlive a failure here: a server's memory is no garbage of ours.
            failed.callback(self._organ.close if self._organ else lambda: None)
            values = [label.value for label in self.labels]
            if len(set(values)) != len(values):
                raise DescriptionError(f"{name} and the model that it works within use one label value for two things")
            if self._organ is not None and self._organ.model.description.preprocess:
                raise DescriptionError(f"{name} works within {self._organ.model.name}, which has preprocess: it cannot")
            self._network = networks(self._model)
            failed.callback(self._network.release)
            description = self._model.description
            if description.usual_window is not None:
                batch = max(1, min(description.window.batch, self._network.batch))
                self._network.prepare(description.usual_window, batch=batch)
            failed.pop_all()

    def close(self) -> None:
        """Give back what the networks hold, here or at a server; the next volume takes it again."""
        self._network.release()
        if self._organ is not None:
            self._organ.close()

    @property
    def model(self) -> InstalledModel:
        """The model that was loaded."""
        return self._model

    @property
    def labels(self) -> tuple[Label, ...]:
        """What the values of a label map of this model mean: the organ's labels first."""
        return (*(self._organ.labels if self._organ else ()), *self._model.description.labels)

    def check(self, volume: Volume, modality: str) -> None:
        """Check what can be known of a volume without looking at its voxels.

        Raises
        ------
        UnsuitableVolume
            It is of another modality, or too coarse.
        """
        if self._organ is not None:
            self._organ.check(volume, modality)
        description = self._model.description
        if modality and description.modality and modality != description.modality:
            raise UnsuitableVolume(f"its modality is {modality}, {self._model.name} takes {description.modality}")
        coarsest = max(volume.geometry.spacing)
        if coarsest > description.max_spacing:
            raise UnsuitableVolume(
                f"its voxels are {coarsest:.1f} mm apart, {self._model.name} takes {description.max_spacing:g} mm"
            )

    def segment(
        self,
        volume: Volume,
        out: NDArray[np.uint8],
        *,
        units: str = "HU",
        progress: Callable[[float, str], None] = lambda _fraction, _text: None,
    ) -> Segmentation:
        """Label a volume.

        Parameters
        ----------
        volume : Volume
            In any orientation; may be memory-mapped, and is read once or twice.
        out : array of uint8
            ``[slice, row, column]`` of the volume's shape; every voxel is written.
        units : str
            Of the volume's values.
        progress : callable
            Told the share of the work done, and what is being done.

        Returns
        -------
        Segmentation
            With the verdict `none`, and nothing but background in `out`, where there is nothing to find.
        """
        clock = _Clock()
        _check_numbers(volume)
        measurer = Measurer(volume.geometry, self.labels)
        if self._model.description.preprocess:
            verdict = label_stepwise(self._network, self._model, volume, out, lap=clock.lap, progress=progress)
            progress(0.9, "measuring")
            if verdict.status != "none":
                _measure(volume, out, measurer)
        else:
            verdict = self._label_fixed(volume, out, measurer, clock, progress)
        if verdict.status != "none":
            verdict = _at_the_edge(verdict, cut_off(out, volume.geometry, self._structures()))
        clock.lap("measure")
        return Segmentation(
            verdict=verdict,
            labels=self.labels,
            algorithm=self._algorithm(),
            measurements=measurer.result(units=units),
            seconds=clock.seconds,
        )

    def _label_fixed(
        self,
        volume: Volume,
        out: NDArray[np.uint8],
        measurer: Measurer,
        clock: _Clock,
        progress: Callable[[float, str], None],
    ) -> Verdict:
        """Label a volume by a network that is described by its grid and its intensities, and measure on the way."""
        answers = self._ask(volume, clock, progress)
        progress(0.9, "drawing labels")
        verdict = answers[0].verdict
        if verdict.status == "none":
            out[...] = 0
        else:
            _draw(answers, volume, out, measurer)
        clock.lap("draw")
        return verdict

    def _structures(self) -> dict[str, frozenset[int]]:
        """Return the values of each label of the outermost model; whatever is found within an organ is part of it."""
        if self._organ is None:
            return {label.name: frozenset({label.value}) for label in self.labels}
        inner = {label.value for label in self._model.description.labels}
        return {name: values | inner for name, values in self._organ._structures().items()}  # noqa: SLF001

    def _algorithm(self) -> Algorithm:
        description = self._model.description
        return Algorithm(
            name=description.title,
            version=description.version,
            model=self._model.name,
            sha256=self._model.sha256,
            engine=self._network.identity,
        )

    def _ask(self, volume: Volume, clock: _Clock, progress: Callable[[float, str], None]) -> list[_Answer]:
        """Ask the network, and before it the one that finds the organ; stop where that finds none."""
        if self._organ is None:
            return [self._ask_whole(volume, clock, progress)]
        answers = self._organ._ask(volume, clock, lambda fraction, text: progress(fraction * 0.4, text))  # noqa: SLF001
        if answers[0].verdict.status == "none":
            return answers
        return [*answers, self._ask_within(volume, answers[-1], clock, progress)]

    def _ask_whole(self, volume: Volume, clock: _Clock, progress: Callable[[float, str], None]) -> _Answer:
        description = self._model.description
        progress(0.02, "looking at what is in view")
        view = _view(volume, description)
        clock.lap("look")
        if view.box is None:
            return _Answer(description=description, verdict=Verdict(status="none", reasons=view.reasons))
        grid = network_grid(view.box, description)
        progress(0.06, "resampling")
        values = values_on_grid(volume, grid, description)
        image = scaled(values, description.intensity)
        clock.lap("preprocess")
        progress(0.15, f"running {self._model.name}")
        scores = infer(
            self._network,
            description.window,
            image,
            channels=description.channels,
            progress=lambda share: progress(0.15 + 0.7 * share, f"running {self._model.name}"),
        )
        self._network.release()
        clock.lap("network")
        scores, share = clean(scores, description)
        first = description.labels[0]
        verdict = judge(
            winners(scores, description) == first.value,
            values,
            grid,
            bounds=description.plausibility,
            share=share,
            view=view,
            name=first.name,
        )
        clock.lap("judge")
        return _Answer(description=description, verdict=verdict, grid=grid, scores=scores)

    def _ask_within(
        self, volume: Volume, organ: _Answer, clock: _Clock, progress: Callable[[float, str], None]
    ) -> _Answer:
        """Ask about the inside of an organ: the rest of the image is hidden from the network."""
        description = self._model.description
        progress(0.42, "resampling")
        grid, inside = _inside(organ, description)
        image = scaled(values_on_grid(volume, grid, description), description.intensity)
        within = description.within
        image[~inside] = within.outside if within else 0.0
        clock.lap("preprocess")
        scores = infer(
            self._network,
            description.window,
            image,
            channels=description.channels,
            wanted=inside,
            progress=lambda share: progress(0.45 + 0.4 * share, f"running {self._model.name}"),
        )
        self._network.release()
        clock.lap("network")
        for channel in scores:
            channel[~inside] = channel.min()
        scores, _ = clean(scores, description)
        clock.lap("judge")
        return _Answer(description=description, verdict=organ.verdict, grid=grid, scores=scores)


def _at_the_edge(verdict: Verdict, reasons: tuple[str, ...]) -> Verdict:
    """Let a result that goes on beyond the volume want a review."""
    return replace(verdict, status="review", reasons=(*verdict.reasons, *reasons)) if reasons else verdict


def _view(volume: Volume, description: ModelDescription) -> View:
    if description.field_of_view is not None:
        return look(volume, description.field_of_view)
    whole = canonical_grid(volume.geometry, description.orientation, description.spacing)
    return View(box=whole, reasons=(), body=(0.0, 0.0))


def _inside(organ: _Answer, description: ModelDescription) -> tuple[VolumeGeometry, Mask]:
    """Lay a network's grid over an organ, and say which of its voxels are in the organ or near it."""
    if organ.grid is None or organ.scores is None or description.within is None:
        raise ValueError("the organ was not asked for")
    marked = winners(organ.scores, organ.description) > 0
    found = np.argwhere(marked)
    # Room for the dilation, and for half a voxel of either grid.
    reach = (description.within.dilation + 1) * np.array(description.spacing) + np.array(organ.grid.spacing)
    # The organ's grid has the patient's axes already, but maybe in another order.
    axes = np.array(canonical_grid(organ.grid, description.orientation, description.spacing).axes)
    corners = organ.grid.index_to_world(np.array([found.min(axis=0), found.max(axis=0)])) @ axes.T
    grid = grid_of_box(axes, corners.min(axis=0) - reach, corners.max(axis=0) + reach, description.spacing)
    if len(organ.scores) == 1:
        # Interpolated before it is decided upon, the border lies between the voxels of the coarser grid.
        score, limit = organ.scores[0], organ.description.threshold
    else:
        score, limit = marked.astype(np.float32), 0.5
    mask = resample(Volume(geometry=organ.grid, array=score), grid, fill=float(score.min())) > limit
    if description.within.dilation:
        mask = ndimage.binary_dilation(mask, _NEAR, iterations=description.within.dilation)
    return grid, mask


def _check_numbers(volume: Volume) -> None:
    """Check that a volume has values everywhere; whole numbers always do."""
    if volume.array.dtype.kind == "f" and not all(np.isfinite(plane).all() for plane in volume.array):
        raise UnsuitableVolume("some of its values are no numbers, or infinite")


def _measure(volume: Volume, labels: NDArray[np.uint8], measurer: Measurer) -> None:
    for index, (drawn, plane) in enumerate(zip(labels, volume.array, strict=True)):
        measurer.add(index, drawn, plane)


def _draw(answers: list[_Answer], volume: Volume, out: NDArray[np.uint8], measurer: Measurer) -> None:
    """Put all answers onto the volume's grid, the later over the earlier, and measure on the way."""
    streams = [
        label_slices(answer.scores, answer.grid, volume.geometry, answer.description)
        for answer in answers
        if answer.scores is not None and answer.grid is not None
    ]
    for planes in zip(*streams, strict=True):
        index, drawn = planes[0]
        for _, plane in planes[1:]:
            drawn = np.where(plane > 0, plane, drawn)
        out[index] = drawn
        measurer.add(index, drawn, volume.array[index])

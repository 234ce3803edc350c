"""Stage `ai-vnet`: label volumes with a network of the model repository, the liver's unless told otherwise."""

from __future__ import annotations

import argparse

from clara_wf.inference.segment import Segmenter
from clara_wf.operators.segmentation_stage import label_volumes, load_segmenter
from clara_wf.stage import StageContext, main

DEFAULT_MODEL = "liver"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--model NAME``."""
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help="model of the repository (%(default)s)")


def prepare(context: StageContext) -> Segmenter:
    """Load the network while the stages before still work."""
    return load_segmenter(context)


def execute(context: StageContext, segmenter: Segmenter) -> None:
    """Label every volume of the input that the model takes."""
    label_volumes(context, segmenter)


if __name__ == "__main__":
    main(prepare=prepare, execute=execute, arguments=arguments)

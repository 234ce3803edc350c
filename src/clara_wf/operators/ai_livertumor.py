"""Stage `ai-livertumor`: find the liver, then tumours within it, by two networks. Labels: 1 liver, 2 tumour."""

from __future__ import annotations

import argparse

from clara_wf.inference.segment import Segmenter
from clara_wf.operators.segmentation_stage import label_volumes, load_segmenter
from clara_wf.stage import StageContext, main

DEFAULT_MODEL = "liver-lesion"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--model NAME``: a network that works within what another one finds."""
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help="model of the repository (%(default)s)")


def prepare(context: StageContext) -> Segmenter:
    """Load both networks while the stages before still work."""
    return load_segmenter(context)


def execute(context: StageContext, segmenter: Segmenter) -> None:
    """Label every volume of the input that the networks take."""
    label_volumes(context, segmenter)


if __name__ == "__main__":
    main(prepare=prepare, execute=execute, arguments=arguments)

"""Stage `ai-livertumor`: find the liver, then tumours within it, by two networks. Labels: 1 liver, 2 tumour."""

from __future__ import annotations

from clara_wf.inference.segment import Segmenter
from clara_wf.operators.segmentation_stage import label_volumes
from clara_wf.stage import StageContext, main

MODEL = "liver-lesion"


def prepare(context: StageContext) -> Segmenter:
    """Load both networks while the stages before still work."""
    return Segmenter(context.model_repository, MODEL)


def execute(context: StageContext, segmenter: Segmenter) -> None:
    """Label every volume of the input that the networks take."""
    label_volumes(context, segmenter)


if __name__ == "__main__":
    main(prepare=prepare, execute=execute)

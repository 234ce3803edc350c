"""Stage `ai-livertumor`: find the liver, then tumours within it, by two networks. Labels: 1 liver, 2 tumour."""

from __future__ import annotations

from clara_wf.operators.segmentation_stage import run_stage

if __name__ == "__main__":
    run_stage(default_model="liver-lesion")

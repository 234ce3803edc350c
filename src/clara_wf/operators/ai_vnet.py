"""Stage `ai-vnet`: label volumes with a network of the model repository, the liver's unless told otherwise."""

from __future__ import annotations

from clara_wf.operators.segmentation_stage import run_stage

if __name__ == "__main__":
    run_stage(default_model="liver")

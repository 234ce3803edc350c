"""What is loaded of ITK: the stage's start, its memory and the size of its image hang on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from clara_wf.containers.pruning import prune, read_patterns

ROOT = Path(__file__).parents[2]
_SCRIPT = """
import json, sys
import numpy as np
from clara_wf.reconstruction.rtk import Image, toolkit
kit = toolkit()
Image(array=np.zeros((3, 4, 5), np.float32), origin=(0, 0, 0), spacing=(1, 1, 1))
before = set(sys.modules)
solver = kit.rtk.RegularizedConjugateGradientConeBeamReconstructionFilter[kit.image].New()
base = kit.rtk.IterativeConeBeamReconstructionFilter[kit.image]
later = sorted(set(sys.modules) - before)
files = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("itk.")} - {None}
files |= {line.split()[-1] for line in open("/proc/self/maps") if "/itk/" in line and ".so" in line}
print(json.dumps({"files": sorted(files), "later": later}))
"""


def test_only_what_is_used_is_loaded_and_at_once_and_the_image_has_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # "itk/rtk....py", as it lies beside the other packages.
    places = [place.partition("/site-packages/")[2] for place in found["files"]]
    assert {place for place in places if place.endswith(".so")} == {
        f"itk/_{name}Python.abi3.so" for name in ("ITKBridgeNumPy", "ITKCommon", "ITKFFT", "ITKPyBase", "RTK")
    }
    assert found["later"] == [], "loaded in the middle of the work"
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    prune(tmp_path, (*read_patterns(ROOT / "images/prune.txt"), *read_patterns(ROOT / "images/recon/prune.txt")))
    left = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert left == set(places)

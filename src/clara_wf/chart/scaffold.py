"""The first code of a new stage: a module, an image recipe and a test that passes at once."""

from __future__ import annotations

_MODULE = '''"""Stage {stage}: reads one folder, writes another. Not for clinical use."""

from __future__ import annotations

import shutil

from clara_wf.stage import StageContext, main


def prepare(context: StageContext) -> None:
    """Load what takes long (models, libraries): this runs while the stage before still works."""


def execute(context: StageContext, prepared: None) -> None:
    """Do the work. Here: hand every file on as it is."""
    files = sorted(file for file in context.inputs.rglob("*") if file.is_file())
    for number, file in enumerate(files):
        context.progress(number / len(files), f"file {{number + 1}} of {{len(files)}}")
        target = context.outputs / file.relative_to(context.inputs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    context.log.info("handed on %d files", len(files))


if __name__ == "__main__":
    main(prepare=prepare, execute=execute)
'''

_DOCKERFILE = """# Build it:  clara-wf build {stage}
# By hand, in this folder:  docker build --tag clara-wf/{stage}:0.1.0 --build-arg BASE_IMAGE=... .
# BASE_IMAGE is any image with Python >= 3.11 and clara-wf: dicom-reader's, unless a name follows here after a "=".
ARG BASE_IMAGE
FROM ${{BASE_IMAGE}}

COPY {module}.py /opt/stage/
# Before what the base has there: clara-wf itself.
ENV PYTHONPATH=/opt/stage:${{PYTHONPATH}} PYTHONUNBUFFERED=1

# Never root: the payload's folders decide who may write.
USER 10001:10001
WORKDIR /app
CMD ["python", "-m", "{module}"]
"""

# By unittest, which every Python has; pytest runs it too.
_TEST = '''"""Runs stage {stage} as a runner does: by its folders, its variables, its lock and its exit code."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).parent


class TestStage(unittest.TestCase):
    """Needs nothing but Python: `python -m unittest discover` in this folder, or pytest."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.app = Path(temporary.name)
        for folder in ("input", "output", "locks", "logs"):
            (self.app / folder).mkdir()

    def run_stage(self, *arguments: str) -> int:
        """Run the stage to its end; return its exit code."""
        variables = {{
            "STAGENAME": "{stage}",
            "JOBID": "00000000-0000-0000-0000-000000000000",
            "JOBNAME": "test",
            "IMAGE": "clara-wf/{stage}:0.1.0",
            "APPDIR": str(self.app),
            "INPUTS": "input",
            "OUTPUTS": "output",
            "INPUTLOCK": str(self.app / "locks/input.lock"),
            "LOCKDIR": str(self.app / "locks"),
            "LOCKNAME": "{stage}.lock",
            "WAITNAME": "",
            "LOGNAME": str(self.app / "logs/{stage}.log"),
            "TIMEOUT": "60",
            "RUNSIMPLE": "TRUE",
            "TRTISURI": "",
        }}
        environment = os.environ | {{f"NVIDIA_CLARA_{{name}}": value for name, value in variables.items()}}
        command = [sys.executable, "-m", "{module}", *arguments]
        return subprocess.run(command, cwd=HERE, env=environment, check=False).returncode

    def test_hands_on_what_it_reads(self) -> None:
        (self.app / "input/volume.raw").write_bytes(bytes(range(256)))

        self.assertEqual(self.run_stage(), 0)

        self.assertEqual((self.app / "output/volume.raw").read_bytes(), bytes(range(256)))
        lock = json.loads((self.app / "locks/{stage}.lock").read_text())
        self.assertEqual(lock["state"], "completed")


if __name__ == "__main__":
    unittest.main()
'''


def module_name(stage: str) -> str:
    """Return the name of a stage's module: it begins with "stage_", so that it hides no other and is a Python name."""
    return f"stage_{stage.replace('-', '_')}"


def code_files(stage: str) -> dict[str, str]:
    """Return the files of ``images/<stage>/`` by name."""
    module = module_name(stage)
    files = {f"{module}.py": _MODULE, "Dockerfile": _DOCKERFILE, f"test_{module}.py": _TEST}
    return {name: text.format(stage=stage, module=module) for name, text in files.items()}

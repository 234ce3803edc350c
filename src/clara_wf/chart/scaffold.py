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

_DOCKERFILE = """# Build it in this folder:  docker build --tag clara-wf/{stage}:0.1.0 --build-arg BASE_IMAGE=... .
# BASE_IMAGE is any image with Python >= 3.11 in which clara-wf is installed.
ARG BASE_IMAGE
FROM ${{BASE_IMAGE}}

COPY {module}.py /opt/stage/
ENV PYTHONPATH=/opt/stage PYTHONUNBUFFERED=1

# Never root: the payload's folders decide who may write.
USER 10001:10001
WORKDIR /app
CMD ["python", "-m", "{module}"]
"""

_TEST = '''"""Runs stage {stage} as a runner does: by its folders, its variables, its lock and its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_hands_on_what_it_reads(tmp_path: Path) -> None:
    app = tmp_path / "app"
    for folder in ("input", "output", "locks", "logs"):
        (app / folder).mkdir(parents=True)
    (app / "input" / "volume.raw").write_bytes(bytes(range(256)))
    variables = {{
        "STAGENAME": "{stage}",
        "JOBID": "00000000-0000-0000-0000-000000000000",
        "JOBNAME": "test",
        "IMAGE": "clara-wf/{stage}:0.1.0",
        "APPDIR": str(app),
        "INPUTS": "input",
        "OUTPUTS": "output",
        "INPUTLOCK": str(app / "locks/input.lock"),
        "LOCKDIR": str(app / "locks"),
        "LOCKNAME": "{stage}.lock",
        "WAITNAME": "",
        "LOGNAME": str(app / "logs/{stage}.log"),
        "TIMEOUT": "60",
        "RUNSIMPLE": "TRUE",
        "TRTISURI": "",
    }}
    environment = os.environ | {{f"NVIDIA_CLARA_{{name}}": value for name, value in variables.items()}}

    done = subprocess.run([sys.executable, "-m", "{module}"], cwd=HERE, env=environment, check=False)

    assert done.returncode == 0
    assert (app / "output" / "volume.raw").read_bytes() == bytes(range(256))
    assert json.loads((app / "locks" / "{stage}.lock").read_text())["state"] == "completed"
'''


def module_name(stage: str) -> str:
    """Return the name of a stage's module: it begins with "stage_", so that it hides no other and is a Python name."""
    return f"stage_{stage.replace('-', '_')}"


def code_files(stage: str) -> dict[str, str]:
    """Return the files of ``images/<stage>/`` by name."""
    module = module_name(stage)
    files = {f"{module}.py": _MODULE, "Dockerfile": _DOCKERFILE, f"test_{module}.py": _TEST}
    return {name: text.format(stage=stage, module=module) for name, text in files.items()}

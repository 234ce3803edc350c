"""Bytes changed at random: a volume or a clear error, never anything else."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from clara_wf.imaging.dicom_reader import read_folder
from clara_wf.model.errors import ClaraError


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_a_damaged_file_is_never_more_than_an_error(folder, tmp_path, syntax):
    image = folder.image(np.arange(1024, dtype="<u2").reshape(32, 32))
    native = syntax in {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
    path = folder.save("x", image, syntax if native else ExplicitVRLittleEndian)
    if not native:
        image.compress(syntax, generate_instance_uid=False)
        image.save_as(path)
    good = path.read_bytes()
    output = tmp_path / "output"
    output.mkdir()
    chance = random.Random(20)
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 3, 20])):
            bad[chance.randrange(128, chance.choice([800, len(bad)]))] = chance.randrange(256)
        path.write_bytes(bad[: chance.choice([len(bad), len(bad), chance.randrange(len(bad))])])
        with contextlib.suppress(ClaraError):
            read_folder(folder.path, output, resample=True)
        assert (output / "series.json").exists()

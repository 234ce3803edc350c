"""From a label's name to what DICOM needs of it: codes and a colour.

The codes are those of pydicom's dictionary, found by its keywords. A name that is not among ours gets a private code,
which says no more than the name does.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydicom.sr.codedict import codes

from clara_wf.importers.translation import Notes
from clara_wf.inference.install import LONGEST_NAME, text_fault
from clara_wf.inference.reader import quoted

#: The scheme of codes that say nothing but a name: DICOM leaves 99... to everybody.
PRIVATE_SCHEME = "99CLARAWF"
_ANATOMY = {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"}
_MORPHOLOGY = {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Altered Structure"}
#: DICOM's limits: Code Value is SH, Code Meaning is LO.
_VALUE_LENGTH, _MEANING_LENGTH = 16, 64

#: Words of a name, in any order, to pydicom's keyword. Which side is left out: the name keeps it.
_ORGANS: Mapping[str, str] = {
    "liver": "Liver",
    "spleen": "Spleen",
    "kidney": "Kidney",
    "pancreas": "Pancreas",
    "lung": "Lung",
    "heart": "Heart",
    "aorta": "Aorta",
    "bladder": "Bladder",
    "urinary bladder": "Bladder",
    "prostate": "Prostate",
    "stomach": "Stomach",
    "duodenum": "Duodenum",
    "small bowel": "SmallIntestine",
    "small intestine": "SmallIntestine",
    "colon": "Colon",
    "rectum": "Rectum",
    "esophagus": "Esophagus",
    "oesophagus": "Esophagus",
    "gallbladder": "Gallbladder",
    "gall bladder": "Gallbladder",
    "adrenal gland": "AdrenalGland",
    "adrenal": "AdrenalGland",
    "inferior vena cava": "InferiorVenaCava",
    "postcava": "InferiorVenaCava",
    "superior vena cava": "SuperiorVenaCava",
    "portal vein": "PortalVein",
    "hepatic vein": "HepaticVein",
    "splenic vein": "SplenicVein",
    "pulmonary artery": "PulmonaryArtery",
    "pulmonary vein": "PulmonaryVein",
    "iliac artery": "IliacArtery",
    "atrium left heart": "LeftAtrium",
    "atrium left": "LeftAtrium",
    "atrium right heart": "RightAtrium",
    "atrium right": "RightAtrium",
    "ventricle left heart": "LeftVentricle",
    "ventricle left": "LeftVentricle",
    "ventricle right heart": "RightVentricle",
    "ventricle right": "RightVentricle",
    "trachea": "Trachea",
    "thyroid": "Thyroid",
    "thyroid gland": "Thyroid",
    "brain": "Brain",
    "cerebellum": "Cerebellum",
    "hippocampus": "Hippocampus",
    "spinal cord": "SpinalCord",
    "eye": "Eye",
    "optic nerve": "OpticNerve",
    "mandible": "Mandible",
    "parotid gland": "ParotidGland",
    "skull": "Skull",
    "bone": "Bone",
    "vertebra": "Vertebra",
    "vertebrae": "Vertebra",
    "sacrum": "Sacrum",
    "rib": "Rib",
    "sternum": "Sternum",
    "clavicle": "Clavicle",
    "scapula": "Scapula",
    "humerus": "Humerus",
    "femur": "Femur",
    "muscle": "Muscle",
    "uterus": "Uterus",
    "breast": "Breast",
    "lymph node": "LymphNode",
    "blood vessel": "BloodVessel",
    "vessel": "BloodVessel",
}
#: The same for what is no part of a healthy body.
_LESIONS: Mapping[str, str] = {
    "tumor": "Neoplasm",
    "tumour": "Neoplasm",
    "cancer": "Neoplasm",
    "neoplasm": "Neoplasm",
    "lesion": "Lesion",
    "mass": "Mass",
    "cyst": "Cyst",
    "nodule": "Nodule",
    "edema": "Edema",
    "oedema": "Edema",
    "necrosis": "Necrosis",
    "hemorrhage": "Hemorrhage",
    "haemorrhage": "Hemorrhage",
}
_SIDES = {"left", "right", "l", "r"}
_VERTEBRA = re.compile(r"(C[1-7]|T[1-9]|T1[0-2]|L[1-5])", re.IGNORECASE)
_GOLDEN = 0.618033988749895


def label_entries(names: Iterable[tuple[int, str]], notes: Notes) -> list[dict[str, Any]]:
    """Return the labels as `model.yaml` has them; names that no person can be shown are faults.

    Parameters
    ----------
    names : iterable of (int, str)
        Value and name of each, the values numbered from 1.
    notes : Notes
        Where faults are noted.
    """
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    for value, name in names:
        why = text_fault(name, longest=LONGEST_NAME)
        if why:
            notes.fault(f"the label {value}, {quoted(name)}, {why}")
        entry = label_entry(value, "?" if why else name, value - 1, taken=taken)
        if entry["type"]["scheme"] == PRIVATE_SCHEME:
            taken.add(entry["type"]["value"])
        entries.append(entry)
    return entries


def label_entry(value: int, name: str, index: int, *, taken: Collection[str] = ()) -> dict[str, Any]:
    """Return a label as `model.yaml` has it.

    Parameters
    ----------
    value : int
        In the label map.
    name : str
        As the network's author calls it: ``kidney_left``.
    index : int
        Its place among the labels, which chooses its colour.
    taken : collection of str
        Private codes of other labels.
    """
    category, kind = _coded(name, taken)
    return {"value": value, "name": name, "category": category, "type": kind, "color": _colour(index)}


def _coded(name: str, taken: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return category and type of a name."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    level = [word for word in words if _VERTEBRA.fullmatch(word)]
    if len(level) == 1 and {"vertebra", "vertebrae"} & set(words):
        return _ANATOMY, _sct(f"{level[0].upper()}Vertebra")
    lesion = [_LESIONS[one] for word in words if (one := _singular(word, _LESIONS))]
    if lesion:
        # A tumour of the liver is a tumour: where it is, its name says.
        return _MORPHOLOGY, _sct(lesion[0])
    for known in (words, [word for word in words if word not in _SIDES]):
        keyword = _BY_WORDS.get(frozenset(_singular(word, _WORDS) or word for word in known))
        if keyword is not None:
            return _ANATOMY, _sct(keyword)
    return _ANATOMY, _private(name, taken)


_BY_WORDS = {frozenset(words.split()): keyword for words, keyword in _ORGANS.items()}
_WORDS = {word: "" for words in _ORGANS for word in words.split()}


def _singular(word: str, known: Mapping[str, str]) -> str:
    """Return a word as it is known: itself or without its s; empty if it is not."""
    return next((form for form in (word, word.removesuffix("s"), word.removesuffix("es")) if form in known), "")


def _sct(keyword: str) -> dict[str, str]:
    code = getattr(codes.SCT, keyword)
    return {"value": str(code.value), "scheme": "SCT", "meaning": str(code.meaning)}


def _private(name: str, taken: Collection[str]) -> dict[str, str]:
    """Return a code of our own: the name, or as much of it as is allowed and what tells it from others."""
    value = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").upper()
    beginning, tries = value[: _VALUE_LENGTH - 7], 0
    while not value or len(value) > _VALUE_LENGTH or value in taken:
        digest = hashlib.sha256(f"{name}{tries or ''}".encode()).hexdigest()[:6].upper()
        value, tries = f"{beginning}-{digest}".strip("-"), tries + 1
    return {"value": value, "scheme": PRIVATE_SCHEME, "meaning": name[:_MEANING_LENGTH]}


def _colour(index: int) -> list[int]:
    """Return a colour that no other of 255 labels has: hues a golden ratio apart, in three strengths."""
    hue = (index * _GOLDEN) % 1
    saturation = (0.85, 0.55, 0.7)[index % 3]
    brightness = (1.0, 0.9, 0.75)[(index // 3) % 3]
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, brightness)]

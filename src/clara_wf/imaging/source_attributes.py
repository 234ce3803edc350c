"""The source's attributes, from a record's DICOM JSON model to what can be written and read back the same."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pydicom
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

#: Specific Character Set of what no other holds.
UTF8 = ("ISO_IR 192",)


def parse_model(model: Mapping[str, Any]) -> tuple[Dataset, list[str]]:
    """Read a DICOM JSON model element by element, so that one broken element does not cost the others."""
    dataset, dropped = Dataset(), []
    for key, value in model.items():
        try:
            # A keyword is taken for a tag, too: it is how people write such files by hand.
            tag = Tag(int(key, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", key) else Tag(key)
            dataset.update(Dataset.from_json({f"{tag:08X}": value}))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
            # No `exc` is kept: its text quotes the value.
            dropped.append(key)
    return dataset, dropped


def declared_character_set(parsed: Dataset) -> tuple[str, ...]:
    """Return what the source says its texts are encoded in; empty if nothing."""
    declared = parsed.get("SpecificCharacterSet") or ()
    return (declared,) if isinstance(declared, str) else tuple(str(item or "") for item in declared)


def encodable(parsed: Dataset, character_set: tuple[str, ...]) -> tuple[Dataset, tuple[str, ...], list[str]]:
    """Find the character set in which all that is to be written comes back the same, and drop what never does."""
    elements = [element for element in parsed if element.keyword != "SpecificCharacterSet"]
    if any(term and term not in python_encoding for term in character_set):
        character_set = ()
    # The libraries take Latin-1 for what is declared as nothing; the standard takes ASCII.
    is_ascii = all(str(comparable(element.value)).isascii() for element in elements)
    if not (character_set or is_ascii) or not all(_survives(element, character_set) for element in elements):
        character_set = UTF8
    kept, dropped = Dataset(), []
    for element in elements:
        if _survives(element, character_set):
            kept.add(element)
        else:
            dropped.append(element.keyword or str(element.tag))
    return kept, character_set, dropped


def _survives(element: DataElement, character_set: tuple[str, ...]) -> bool:
    """Say whether an element can be written and is read back the same."""
    dataset = Dataset()
    if character_set:
        dataset.SpecificCharacterSet = list(character_set)
    # A copy, since a name keeps the bytes that it was once encoded to.
    dataset.add(DataElement(element.tag, element.VR, _fresh(element)))
    try:
        buffer = io.BytesIO()
        dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
        buffer.seek(0)
        again = pydicom.dcmread(buffer, force=True)
        return element.tag in again and comparable(again[element.tag].value) == comparable(element.value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, LookupError, NotImplementedError):
        return False


def _fresh(element: DataElement) -> object:
    if element.VR != "PN":
        return element.value
    if isinstance(element.value, Iterable) and not isinstance(element.value, str | pydicom.valuerep.PersonName):
        return [str(name) for name in element.value]
    return str(element.value)


def comparable(value: object) -> object:
    """Bring a value to a form in which equal means the same in DICOM: padding and empty texts are nothing."""
    if isinstance(value, pydicom.sequence.Sequence):
        return [{element.tag: comparable(element.value) for element in item} for item in value]
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    if isinstance(value, Iterable) and not isinstance(value, str | pydicom.valuerep.PersonName):
        return [comparable(item) for item in value]
    return "" if value is None else str(value).rstrip(" \0").rstrip("=^")

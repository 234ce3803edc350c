"""Kubernetes quantities ("500m", "2Gi") as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(r"(?P<number>[+-]?(\d+\.?\d*|\.\d+))(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(value: object) -> Decimal:
    """Turn a quantity into a number: cores, or bytes.

    Raises
    ------
    ValueError
        It is no quantity, or below zero.
    """
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        raise ValueError(f"'{value}' is no quantity such as 500m or 2Gi")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix.endswith("i"):
        number *= Decimal(1024) ** ("KMGTPE".index(suffix[0]) + 1)
    elif suffix in _DECIMAL:
        number *= Decimal(10) ** _DECIMAL[suffix]
    elif suffix:
        number *= Decimal(10) ** int(suffix[1:])
    if number < 0:
        raise ValueError(f"'{value}' is below zero")
    return number

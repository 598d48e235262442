"""Kubernetes quantities such as `250m` and `1Gi`, so that a typo stops the preview and not a pod."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, Field

PATTERN: Final = r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
"""A number, and a unit or none."""
_UNITS: Final = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}


def parse(quantity: str) -> Decimal:
    """The number behind a quantity, in CPUs or bytes.

    Raises ValueError when it is not one, or is not more than zero. The exponents and the smallest and
    largest units of Kubernetes are refused on purpose: nobody means them here.
    """
    match = re.fullmatch(PATTERN, quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity; write one like '500m' (CPU) or '512Mi' (bytes)")
    number = Decimal(match[1]) * _UNITS.get(match[2], Decimal(1))
    if number <= 0:
        raise ValueError(f"{quantity!r} is nothing; write a quantity above zero")
    return number


def readable(resource: str, amount: Decimal) -> str:
    """`amount` as a person writes it: bytes in Mi or Gi, anything else as a number."""
    if not resource.endswith(("memory", "storage")):
        return f"{amount.normalize():f}"
    unit = "Gi" if amount % _UNITS["Gi"] == 0 else "Mi"
    return f"{(amount / _UNITS[unit]).to_integral_value(ROUND_CEILING)}{unit}"


def _valid(quantity: str) -> str:
    parse(quantity)
    return quantity


Quantity = Annotated[str, AfterValidator(_valid), Field(json_schema_extra={"pattern": PATTERN})]
"""A quantity as Kubernetes writes it, checked."""

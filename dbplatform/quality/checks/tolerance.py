"""How many rows may fail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many rows may fail: a number of rows, or a share (percent) of the rows that were considered."""

    rows: int | None = None
    percent: Decimal | None = None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """``10`` rows or ``"1%"``; raises ValueError with a sentence."""
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 0:
                raise ValueError(f"tolerance {value} is negative; write rows (10) or a percentage (1%)")
            return cls(rows=value)
        match = re.fullmatch(r"\s*(\S+?)\s*%\s*", value) if isinstance(value, str) else None
        try:
            percent = Decimal(match[1]) if match else None
        except InvalidOperation:
            percent = None
        if percent is None or not percent.is_finite():
            raise ValueError(f"tolerance {value!r} is neither a number of rows (10) nor a percentage (1%)")
        if not 0 <= percent <= 100:
            raise ValueError(f"tolerance {value!r} is not between 0% and 100%")
        return cls(percent=percent)

    def allows(self, failed: int, considered: int) -> bool:
        """Whether so many failing rows are within the tolerance; exact, without rounding."""
        if self.rows is not None:
            return failed <= self.rows
        return self.percent is not None and failed * 100 <= self.percent * considered

    def __str__(self) -> str:
        return f"{self.rows:,} rows" if self.rows is not None else f"{self.percent}%"


#: A tolerance as people write it.
ToleranceWords = Annotated[Tolerance, BeforeValidator(Tolerance.parse), PlainSerializer(str)]

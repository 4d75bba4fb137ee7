"""How a person writes that some of the rows are to be read for all: ``sample: 1%``, ``sample: 100000 rows``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Method = Literal["system", "bernoulli"]

_WORDS = re.compile(r"\s*(?:(\d{1,9}(?:\.\d{1,9})?)\s*%|([\d,_]{1,30})\s+rows?)(?:\s+(\w+))?\s*", re.IGNORECASE)
_FORM = "1%, '100000 rows', '1% bernoulli' or all"


@dataclass(frozen=True, slots=True)
class Sample:
    """How much is read: a share of the table, or about so many rows; neither: all of it.

    ``system`` reads whole blocks, chosen by chance: cheap, and rows that came together stay together. ``bernoulli``
    reads all blocks and chooses each row by itself (manual: SELECT, TABLESAMPLE).
    """

    percent: Decimal | None = None
    rows: int | None = None
    method: Method = "system"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """``1%``, ``100000 rows``, either with ``bernoulli`` behind it, or ``all``; raises ValueError."""
        if isinstance(value, cls):
            return value
        text = value if isinstance(value, str) else ""
        if text.strip().lower() == "all":
            return cls()
        match = _WORDS.fullmatch(text)
        if match is None:
            raise ValueError(f"sample {value!r} is no part of a table; write {_FORM}")
        percent, rows, method = match[1], re.sub("[,_]", "", match[2] or ""), (match[3] or "system").lower()
        if method not in get_args(Method):
            raise ValueError(f"sample {value!r}: {match[3]} is no method; write system or bernoulli")
        if percent is not None and not 0 < Decimal(percent) < 100:
            raise ValueError(f"sample {value!r} is not between 0% and 100%; for all rows write all")
        if percent is None and (not rows or int(rows) == 0):
            raise ValueError(f"sample {value!r} has no row; write {_FORM}")
        return cls(
            percent=None if percent is None else Decimal(percent),
            rows=None if percent is not None else int(rows),
            method=cast("Method", method),
        )

    @property
    def all(self) -> bool:
        """Nothing is left out: what a check says that is not to be judged by the sample of its table."""
        return self.percent is None and self.rows is None

    def __str__(self) -> str:
        if self.all:
            return "all"
        share = f"{self.percent}%" if self.percent is not None else f"{self.rows:,} rows"
        return share if self.method == "system" else f"{share} {self.method}"


#: A sample as people write it.
SampleWords = Annotated[
    Sample,
    BeforeValidator(Sample.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "description": _FORM}),
]

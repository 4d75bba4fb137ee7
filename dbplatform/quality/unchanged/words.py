"""How a person says of which partitions earlier answers may be taken over: ``unchanged: proven``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from dbplatform.postgres.words import Interval

_IMMUTABLE = re.compile(r"\s*immutable\s+after\s+(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """``proven``: the row versions prove it. ``immutable after 3 months``: it is promised of partitions that end
    so long ago; only where something contradicts the promise must the row versions prove it."""

    after: Interval | None = None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Raises ValueError with a sentence."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and value.strip().lower() == "proven":
            return cls()
        match = _IMMUTABLE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"unchanged {value!r} is neither 'proven' nor 'immutable after 3 months'")
        return cls(Interval.parse(match[1]))

    def __str__(self) -> str:
        return "proven" if self.after is None else f"immutable after {self.after}"


UnchangedWords = Annotated[
    Unchanged, BeforeValidator(Unchanged.parse), PlainSerializer(str), WithJsonSchema({"type": "string"})
]

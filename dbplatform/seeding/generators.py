"""The values of generated columns: what may be declared, and numbers that are the same on every machine.

Row ``n`` of a column depends on the seed's number, the names of table and column, and ``n``; so a larger scale only
adds rows (references, which choose among all rows of their parent, aside). The random numbers are Philox's raw ones
(Salmon et al., SC 2011), turned into values here: NumPy may change its distributions between versions, its streams of
raw numbers it does not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from string import Formatter
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dbplatform.postgres.words import AwareTime, DurationWords, Policy, RelationName

#: Rows that are made at once; part of what a seed gives, like the numbers themselves.
BLOCK_ROWS = 8192

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _short(key: str) -> BeforeValidator:
    """``faker: email`` is short for ``faker: {<key>: email}``."""
    return BeforeValidator(lambda value: value if isinstance(value, dict) else {key: value})


def _midnight(value: Any) -> Any:
    """YAML reads a day as a date: it is the midnight with which it begins, in UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


#: A time; a day is its midnight, and what has no zone is in UTC.
Moment = Annotated[AwareTime, BeforeValidator(_midnight)]


class Sequence_(Policy):
    """1, 2, 3."""

    start: int = 1
    step: int = 1


class Integer(Policy):
    """Whole numbers, each as likely as any other, both ends included."""

    min: int
    max: int

    @model_validator(mode="after")
    def _ordered(self) -> Integer:
        if self.max < self.min:
            raise ValueError(f"max {self.max} lies below min {self.min}")
        return self


class Number(Policy):
    """Numbers with ``digits`` behind the point."""

    min: float
    max: float
    digits: Annotated[int, Field(ge=0, le=15)] = 2


class Days(Policy):
    """Dates from the first up to, not including, the second."""

    from_: date = Field(alias="from")
    to: date

    @model_validator(mode="after")
    def _ordered(self) -> Days:
        if self.to <= self.from_:
            raise ValueError("to must come after from")
        return self


class Moments(Policy):
    """Times in ``[from, to)``, or up to ``within`` after another column of the same row."""

    from_: Moment | None = Field(default=None, alias="from")
    to: Moment | None = None
    after: str | None = None
    within: DurationWords | None = None

    @model_validator(mode="after")
    def _whole(self) -> Moments:
        given = tuple(name is not None for name in (self.from_, self.to, self.after, self.within))
        if given not in ((True, True, False, False), (False, False, True, True)):
            raise ValueError("a timestamp has from and to, or after and within")
        if self.from_ is not None and self.to is not None and self.to <= self.from_:
            raise ValueError("to must come after from")
        return self


class Fake(Policy):
    """A provider of Faker, such as ``name`` or ``email``; ``pool`` is how many different values are asked of it."""

    provider: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    arguments: dict[str, Any] = Field(default_factory=dict)
    pool: Annotated[int, Field(ge=1, le=1_000_000)] = 1000


class Reference(Policy):
    """Keys of another table, those of its foreign key or primary key unless ``columns`` names others."""

    table: RelationName
    columns: tuple[str, ...] | None = None


class Password(Policy):
    """A password as a bcrypt hash; ``env`` names the variable that holds it, ``value`` is one that is no secret."""

    env: str | None = None
    value: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Password:
        if (self.env is None) == (self.value is None):
            raise ValueError("a bcrypt password comes from env or from value")
        return self


_KINDS = (
    "sequence", "integer", "number", "boolean", "value", "choice", "date", "timestamp", "text", "uuid", "faker",
    "reference", "bcrypt",
)  # fmt: skip
_MAY_BE_UNIQUE = ("integer", "faker", "reference")


def _weighed(choice: list[Any] | dict[Any, float]) -> list[Any] | dict[Any, float]:
    if isinstance(choice, dict):
        for word, weight in choice.items():
            if not weight > 0:
                raise ValueError(f"the weight of {word!r} must be above 0")
    return choice


class Column(Policy):
    """How the values of a column come about: exactly one kind, and what holds for every kind."""

    sequence: Annotated[Sequence_, _short("start")] | None = None
    integer: Integer | None = None
    number: Number | None = None
    boolean: Annotated[float, Field(ge=0, le=1)] | None = None
    value: Any = None
    choice: Annotated[list[Any] | dict[Any, float], Field(min_length=1), AfterValidator(_weighed)] | None = None
    date: Days | None = None
    timestamp: Moments | None = None
    text: str | None = None
    uuid: bool | None = None
    faker: Annotated[Fake, _short("provider")] | None = None
    reference: Annotated[Reference, _short("table")] | None = None
    bcrypt: Password | None = None
    null_ratio: Annotated[float, Field(ge=0, le=1)] = 0
    unique: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Column:
        kinds = [kind for kind in _KINDS if kind in self.model_fields_set]
        if len(kinds) != 1:
            named = f"has {len(kinds)} kinds ({', '.join(kinds)})" if kinds else "says not how its values come about"
            raise ValueError(f"the column {named}; write one of {', '.join(_KINDS)}")
        if self.unique and kinds[0] not in _MAY_BE_UNIQUE:
            raise ValueError(f"unique does not go with {kinds[0]}; it goes with {', '.join(_MAY_BE_UNIQUE)}")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next(kind for kind in _KINDS if kind in self.model_fields_set)

    @property
    def others(self) -> tuple[str, ...]:
        """The columns of the same row that it reads; ``n``, the number of the row, is none of them."""
        if self.timestamp is not None and self.timestamp.after is not None:
            return (self.timestamp.after,)
        if self.text is not None:
            return tuple(name for _, name, _, _ in Formatter().parse(self.text) if name not in (None, "n"))
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows ``start`` to ``start + rows`` of a table, and the random numbers of its columns."""

    stream: str
    start: int
    rows: int

    def numbers(self) -> Any:
        """The numbers of the rows, from 0."""
        import numpy as np

        return np.arange(self.start, self.start + self.rows, dtype=np.int64)

    def uniform(self, column: str) -> Any:
        """A number in [0, 1) for each row."""
        return (self.raw(column) >> 11) * 2.0**-53

    def raw(self, column: str, words: int = 1) -> Any:
        """``words`` times 64 random bits for each row."""
        import numpy as np

        digest = hashlib.sha256(f"{self.stream}/{column}".encode()).digest()
        key = np.frombuffer(digest[:16], dtype="<u8")
        source = np.random.Philox(key=key, counter=[0, 0, 0, self.start // BLOCK_ROWS])
        return source.random_raw(BLOCK_ROWS * words)[: self.rows * words]


def values(name: str, column: Column, block: Block, row: dict[str, Any]) -> Any:
    """A column of a block, NULLs not put in yet; ``row`` holds the columns that it reads. Not for the kinds ``faker``,
    ``reference`` and ``bcrypt``, whose values come from elsewhere.
    """
    import numpy as np
    import pyarrow as pa

    match column:
        case Column(sequence=Sequence_() as sequence):
            return pa.array(sequence.start + sequence.step * block.numbers())
        case Column(integer=Integer() as integer):
            return pa.array(integer.min + spread(name, block, integer.max - integer.min + 1, unique=column.unique))
        case Column(number=Number() as number):
            scaled = number.min + block.uniform(name) * (number.max - number.min)
            return pa.array([f"{one:.{number.digits}f}" for one in scaled.tolist()])
        case Column(boolean=float() as chance):
            return pa.array(block.uniform(name) < chance)
        case Column(choice=dict() as weights):
            edges = np.cumsum(list(weights.values()))
            found = np.searchsorted(edges / edges[-1], block.uniform(name), side="right")
            words = list(weights)
            return [words[i] for i in np.minimum(found, len(words) - 1).tolist()]
        case Column(choice=list() as words):
            return [words[i] for i in spread(name, block, len(words)).tolist()]
        case Column(date=Days() as days):
            first = days.from_.toordinal() - _EPOCH.toordinal()
            picked = first + spread(name, block, (days.to - days.from_).days)
            return pa.array(picked.astype("i4")).cast(pa.date32())
        case Column(timestamp=Moments() as moments):
            return _moments(name, moments, block, row)
        case Column(uuid=True):
            return _uuids(block.raw(name, 2))
        case Column(text=str() as template):
            numbers = block.numbers() + 1
            others = {other: _plain(row[other]) for other in column.others}
            fields = [dict(zip(others, cells, strict=True)) for cells in zip(*others.values(), strict=True)]
            each = fields or [{}] * block.rows
            return [template.format(n=n, **cells) for n, cells in zip(numbers.tolist(), each, strict=True)]
        case _:
            return [column.value] * block.rows


def spread(name: str, block: Block, span: int, *, unique: bool = False) -> Any:
    """A number in ``[0, span)`` for each row; with ``unique`` no number comes twice before all have come once."""
    import numpy as np

    if not unique:
        return (
            (block.uniform(name) * span).astype(np.int64) if span < 1 << 53 else (block.raw(name) % span).astype("i8")
        )
    factor, offset = bijection(f"{block.stream}/{name}", span)
    if span < 1 << 31:
        return (block.numbers() % span * factor + offset) % span
    return np.array([(n * factor + offset) % span for n in block.numbers().tolist()], dtype=np.int64)


def bijection(stream: str, span: int) -> tuple[int, int]:
    """``a`` and ``b`` such that ``a * n + b`` modulo ``span`` takes each value once for ``n`` below ``span``."""
    digest = hashlib.sha256(f"{stream}/order".encode()).digest()
    factor = int.from_bytes(digest[:8], "big") % span or 1
    while math.gcd(factor, span) != 1:
        factor += 1
    return factor % span or 1, int.from_bytes(digest[8:16], "big") % span


def with_nulls(name: str, column: Column, block: Block, found: Any) -> Any:
    """The same values, some of them NULL."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not column.null_ratio:
        return found
    empty = block.uniform(f"{name}/null") < column.null_ratio
    if isinstance(found, pa.Array):
        return pc.if_else(pa.array(empty), pa.scalar(None, found.type), found)
    return [None if gone else value for gone, value in zip(empty.tolist(), found, strict=True)]


def in_order(columns: dict[str, Column]) -> list[str]:
    """The columns so that each comes after those that it reads; raises ValueError for a circle or a missing one."""
    ordered: list[str] = []
    reading: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in reading:
            raise ValueError(f"the column {name!r} reads itself, by way of {' and '.join(reading)}")
        reading.append(name)
        for other in columns[name].others:
            if other not in columns:
                raise ValueError(f"the column {name!r} reads {other!r}, which is not generated here")
            visit(other)
        reading.pop()
        ordered.append(name)

    for name in columns:
        visit(name)
    return ordered


def numbered(words: Sequence[str], n: int) -> str:
    """A word for row ``n``: after the last one they begin again, with a number that makes them new."""
    turn, i = divmod(n, len(words))
    word = words[i]
    if not turn:
        return word
    local, at, domain = word.partition("@")
    return f"{local}.{turn}{at}{domain}" if at else f"{word} {turn}"


def _moments(name: str, moments: Moments, block: Block, row: dict[str, Any]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.timestamp("us", tz="UTC")
    if moments.from_ is not None and moments.to is not None:
        start = round((moments.from_ - _EPOCH).total_seconds() * 1_000_000)
        span = round((moments.to - moments.from_).total_seconds() * 1_000_000)
        return pa.array(start + spread(name, block, span)).cast(kind)
    assert moments.within is not None
    before = row[str(moments.after)]
    length = max(1, moments.within.microseconds + 86_400_000_000 * moments.within.days)
    passed = pa.array(spread(name, block, length))
    return pc.add(before.cast(kind).cast(pa.int64()), passed).cast(kind)


def _uuids(raw: Any) -> list[str]:
    """UUIDs of version 4 (RFC 9562) out of 128 random bits each."""
    found = []
    for high, low in raw.reshape(-1, 2).tolist():
        high = high & ~0xF000 | 0x4000
        low = low & ~(0b11 << 62) | 0b10 << 62
        text = f"{high:016x}{low:016x}"
        found.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return found


def _plain(column: Any) -> list[Any]:
    found = column.to_pylist() if hasattr(column, "to_pylist") else column
    return ["" if value is None else value for value in found]

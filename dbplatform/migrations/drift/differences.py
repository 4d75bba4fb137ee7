"""How two schemas differ: one difference for each object that is missing or extra, and for each part that is another.

What goes with a missing or extra object, such as the indexes of a table, is not told beside it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dbplatform.migrations.drift.objects import Objects, SchemaObject
from dbplatform.migrations.drift.sentences import sentence

#: In this order what is missing can be made: each kind may need those before it.
ORDER = (
    *("schema", "extension", "foreign server", "collation", "enum", "domain", "range", "type", "sequence"),
    *("function", "procedure", "table", "column", "aggregate", "operator", "constraint", "index", "statistics"),
    *("text search configuration", "view", "materialized view", "trigger", "rule", "policy", "event trigger"),
    *("publication", "default privileges", "grant", "comment"),
)
_VALUE = re.compile(r"'(?:[^']|'')*'::[a-z ]+")
_CAST_AS_A_WHOLE = re.compile(rf"\(ARRAY\[(?P<values>{_VALUE.pattern}(?:, {_VALUE.pattern})*)\]\)::(?P<to>[a-z ]+)\[\]")
#: A part that changes with another one is not told beside it.
_FOLLOWS = {"columns": "definition", "result": "definition"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One object that is not there, should not be there, or has a part that is not what it should be."""

    wanted: SchemaObject | None
    """None: it should not be there."""
    there: SchemaObject | None
    """None: it is missing."""
    part: str | None = None
    """What of it differs; None: all of it is missing or extra."""
    with_it: tuple[SchemaObject, ...] = ()
    """What is missing with it because it belongs to it."""

    @property
    def object(self) -> SchemaObject:
        found = self.wanted or self.there
        assert found is not None
        return found

    @property
    def kind(self) -> str:
        return self.object.kind

    @property
    def name(self) -> str:
        return self.object.name

    @property
    def expected(self) -> str | None:
        return _text(self.wanted, self.part)

    @property
    def actual(self) -> str | None:
        return _text(self.there, self.part)

    def as_json(self) -> dict[str, Any]:
        """One of ``differences``."""
        return {
            "object": self.name,
            "kind": self.kind,
            "part": self.part,
            "expected": self.expected,
            "actual": self.actual,
            "sentence": str(self),
        }

    def __str__(self) -> str:
        return sentence(self.wanted, self.there, self.part)


def differences(expected: Objects, actual: Objects) -> tuple[Difference, ...]:
    """Every difference, in an order in which what is missing can be made."""
    found: list[Difference] = []
    missing = {key: expected[key] for key in expected.keys() - actual.keys()}
    extra = {key: actual[key] for key in actual.keys() - expected.keys()}
    for key in expected.keys() & actual.keys():
        wanted, there = expected[key], actual[key]
        parts = {**wanted.parts, **there.parts}
        changed = [p for p in parts if not same(wanted.parts.get(p), there.parts.get(p))]
        found += [
            Difference(wanted=wanted, there=there, part=part) for part in changed if _FOLLOWS.get(part) not in changed
        ]
    in_missing, in_extra = _names(missing), _names(extra)
    found += [
        Difference(wanted=wanted, there=None, with_it=family)
        for wanted, family in _families(list(missing.values()), in_missing)
    ]
    found += [Difference(wanted=None, there=there) for there in extra.values() if not _goes_with(there, in_extra)]
    return tuple(sorted(found, key=_position))


def same(one: str | None, other: str | None) -> bool:
    """Whether two definitions mean the same as PostgreSQL writes them.

    A list of varchars that is compared with text is written in one form when it was written by a person, and in another
    one when it was made of that form, as by pg_dump: cast as a whole, or each of its values.
    """
    return one == other or (one is not None and other is not None and _each_cast(one) == _each_cast(other))


def _each_cast(definition: str) -> str:
    return _CAST_AS_A_WHOLE.sub(
        lambda found: (
            "ARRAY[" + ", ".join(f"({value})::{found['to']}" for value in _VALUE.findall(found["values"])) + "]"
        ),
        definition,
    )


def _families(things: list[SchemaObject], names: set[str]) -> Iterator[tuple[SchemaObject, tuple[SchemaObject, ...]]]:
    """What belongs to none of the others, each with all that belongs to it, by any number of steps."""
    children: dict[str, list[SchemaObject]] = defaultdict(list)
    for thing in things:
        if _goes_with(thing, names):
            children[thing.parent or ""].append(thing)
    for thing in things:
        if _goes_with(thing, names):
            continue
        family: list[SchemaObject] = []
        waiting = [thing]
        while waiting:
            below = children[waiting.pop().full_name]
            family += below
            waiting += below
        yield thing, tuple(family)


def _goes_with(thing: SchemaObject, names: set[str]) -> bool:
    """A foreign key between two of them is told by itself: it can be made when both are there."""
    return thing.parent in names and thing.sql.get("references") not in names


def _names(objects: Objects) -> set[str]:
    return {thing.full_name for thing in objects.values()}


def _position(difference: Difference) -> tuple[tuple[int, bool, bool, str], str]:
    rank, foreign, partition, name = order(difference.object)
    if difference.part == "replica identity":
        # It may be by an index.
        rank = ORDER.index("statistics")
    return ((rank, foreign, partition, name), difference.part or "")


def order(thing: SchemaObject) -> tuple[int, bool, bool, str]:
    """Where it stands among others that are to be made."""
    on_view = thing.kind == "index" and (thing.parent or "").startswith("materialized view ")
    kind = "trigger" if on_view else thing.kind
    rank = ORDER.index(kind) if kind in ORDER else len(ORDER)
    return (rank, thing.sql.get("type") == "f", "partition" in thing.parts, thing.name)


def _text(thing: SchemaObject | None, part: str | None) -> str | None:
    if thing is None:
        return None
    return thing.words if part is None else thing.parts.get(part)

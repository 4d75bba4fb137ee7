"""What a plan says that its statement looks for: read from PostgreSQL's own plan, so no SQL is parsed.

A plan that is asked for with VERBOSE names the schema of each table and qualifies each column, so that a condition such
as ``((orders.status)::text = $1)`` can be read without knowing more.
Source: PostgreSQL manual, "EXPLAIN", "Using EXPLAIN".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.prepared import force_generic, prepared

_NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)'
_COLUMN = rf"\(?({_NAME})\.({_NAME})\)?(?:::[\w ]+(?:\(\d+(?:,\d+)?\))?(?:\[\])?)?"
_LEFT = re.compile(rf"{_COLUMN} (=|<|>|<=|>=|@>) (.+)", re.DOTALL)
_RIGHT = re.compile(rf"(.+) (=|<|>|<=|>=) {_COLUMN}", re.DOTALL)
_NULL = re.compile(rf"{_COLUMN} IS NULL")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_ANY_COLUMN = re.compile(rf"{_NAME}\.{_NAME}")
_PARAMETER = re.compile(r"\(?\$(\d+)\)?(?:::[\w \[\]]+)?")
_SORT_KEY = re.compile(rf"{_COLUMN}( DESC)?")
_CONDITIONS = ("Filter", "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter")
#: Planning takes no longer, and waits no longer for a lock.
_LOCK_TIMEOUT_MS, _STATEMENT_TIMEOUT_MS = 2_000, 10_000
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One condition on a column: ``value`` is what it is compared with, as the plan has it."""

    alias: str
    column: str
    operator: str
    value: str

    @property
    def parameter(self) -> int | None:
        """The number of the parameter that it is compared with, where it is one."""
        found = _PARAMETER.fullmatch(self.value.removeprefix("ANY "))
        return int(found[1]) if found is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A table that is read whole: for which conditions, in which order, beside what."""

    table: Relation
    alias: str
    cost: float
    """What would be saved: of the scan, and of what stands above it only for its sake (Gather, Sort)."""
    rows: float
    """As many as it returns, all workers together."""
    filter: tuple[Comparison, ...]
    other_conditions: bool
    """Whether its filter has conditions that cannot be read."""
    order: tuple[str, ...] = ()
    limit: float | None = None
    """How many rows are taken of the ordered ones."""
    joined: tuple[tuple[str, float], ...] = ()
    """Columns by which it is joined, each with the number of rows on the other side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One plan, as far as advice needs it."""

    cost: float
    reads_only: bool
    entries: Relation | None
    """The table into which it writes rows that need entries in every index: by INSERT, UPDATE or MERGE."""
    scans: tuple[Scan, ...]
    tables: frozenset[Relation]
    indexes: frozenset[str]
    """Names of the indexes in it, without a schema."""
    parameters: dict[int, tuple[Relation, str]] = field(default_factory=dict)
    """The table and column that each parameter is compared with."""


def generic_plan(connection: AutocommitConnection, query: str) -> Plan:
    """The plan of a statement for any values. Nothing runs; locks as for its planning: ACCESS SHARE, or ROW EXCLUSIVE
    where it writes. Raises what PostgreSQL answers."""
    with connection.transaction(force_rollback=True):
        connection.execute("set transaction read only")
        connection.execute(
            "select set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
            (str(_LOCK_TIMEOUT_MS), str(_STATEMENT_TIMEOUT_MS)),
        )
        force_generic(connection)
        with prepared(connection, query) as one:
            (document,) = one.explain("verbose, format json")
    return read_plan(document[0]["Plan"])


def read_plan(root: dict[str, Any]) -> Plan:
    """The same from PostgreSQL's document. Pure."""
    nodes = list(_nodes(root))
    aliases = {node["Alias"]: Relation(node["Schema"], node["Relation Name"]) for node in nodes if _is_table(node)}
    parameters: dict[int, tuple[Relation, str]] = {}
    for node in nodes:
        for name in _CONDITIONS:
            for one in conditions(node.get(name, ""))[0]:
                if one.parameter is not None and one.alias in aliases:
                    parameters.setdefault(one.parameter, (aliases[one.alias], one.column))
    return Plan(
        cost=root["Total Cost"],
        reads_only=not any(node["Node Type"] in ("ModifyTable", "LockRows") for node in nodes),
        entries=next(
            (
                Relation(node["Schema"], node["Relation Name"])
                for node in nodes
                if node["Node Type"] == "ModifyTable" and node.get("Operation") != "Delete" and _is_table(node)
            ),
            None,
        ),
        scans=tuple(_scans(root, ())),
        tables=frozenset(aliases.values()),
        indexes=frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
        parameters=parameters,
    )


def _is_table(node: dict[str, Any]) -> bool:
    return "Relation Name" in node and "Schema" in node and "Alias" in node


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _scans(node: dict[str, Any], above: tuple[dict[str, Any], ...]) -> Iterator[Scan]:
    if node["Node Type"] == "Seq Scan" and _is_table(node):
        yield _scan(node, above)
    for child in node.get("Plans", ()):
        yield from _scans(child, (node, *above))


def _scan(node: dict[str, Any], above: tuple[dict[str, Any], ...]) -> Scan:
    alias = node["Alias"]
    known, complete = conditions(node.get("Filter", ""))
    top, limit, workers = node, None, 1.0
    order: tuple[str, ...] = ()
    joined: tuple[tuple[str, float], ...] = ()
    for child, parent in zip((node, *above), above, strict=False):
        kind = parent["Node Type"]
        if kind in ("Gather", "Gather Merge"):
            workers = parent.get("Workers Planned", 0) + 0.5
            top = parent
        elif kind in ("Sort", "Incremental Sort") and not order:
            order = _order(parent.get("Sort Key", ()), alias)
            top = parent if order else top
        elif kind == "Limit" and order:
            limit, top = float(parent["Plan Rows"]), parent
        elif kind == "Hash Join" or (kind in ("Merge Join", "Nested Loop") and not order):
            joined = _joined(parent, child, alias)
            break
        elif kind not in ("Hash", "Materialize", "Memoize"):
            break
    return Scan(
        table=Relation(node["Schema"], node["Relation Name"]),
        alias=alias,
        cost=top["Total Cost"],
        rows=node["Plan Rows"] * max(1.0, workers),
        filter=tuple(one for one in known if one.alias == alias),
        other_conditions=not complete,
        order=order,
        limit=limit,
        joined=joined,
    )


def _joined(join: dict[str, Any], child: dict[str, Any], alias: str) -> tuple[tuple[str, float], ...]:
    """By which columns the table below ``child`` is joined: equality with a column of the other side."""
    others = [one for one in join["Plans"] if one is not child and one.get("Parent Relationship") in ("Outer", "Inner")]
    if not others or join.get("Join Type") not in ("Inner", "Left", "Right", "Semi"):
        return ()
    found: list[tuple[str, float]] = []
    for name in ("Hash Cond", "Merge Cond", "Join Filter"):
        for text in _conjuncts(join.get(name, "")):
            match = re.fullmatch(rf"{_COLUMN} = {_COLUMN}", text)
            if match is not None:
                for of, column in ((match[1], match[2]), (match[3], match[4])):
                    if _plain(of) == alias:
                        found.append((_plain(column), float(others[0]["Plan Rows"])))
    return tuple(found)


def _order(keys: list[str], alias: str) -> tuple[str, ...]:
    """The columns of a sort, where an index read in one direction has that order."""
    found: list[str] = []
    directions: set[str] = set()
    for key in keys:
        match = _SORT_KEY.fullmatch(key)
        if match is None or _plain(match[1]) != alias:
            return ()
        found.append(_plain(match[2]))
        directions.add(match[3] or "")
    return tuple(found) if len(directions) == 1 else ()


def conditions(text: str) -> tuple[list[Comparison], bool]:
    """The comparisons of a condition, as PostgreSQL writes it, that an index can answer, and whether these are all."""
    found: list[Comparison] = []
    parts = _conjuncts(text)
    for part in parts:
        comparison = _comparison(part)
        if comparison is not None:
            found.append(comparison)
    return found, len(found) == len(parts)


def _comparison(text: str) -> Comparison | None:
    if (match := _NULL.fullmatch(text)) is not None:
        return Comparison(alias=_plain(match[1]), column=_plain(match[2]), operator="=", value="NULL")
    if (match := _LEFT.fullmatch(text)) is not None and _constant(match[4]):
        return Comparison(alias=_plain(match[1]), column=_plain(match[2]), operator=match[3], value=match[4])
    if (match := _RIGHT.fullmatch(text)) is not None and _constant(match[1]):
        operator = _TURNED[match[2]]
        return Comparison(alias=_plain(match[3]), column=_plain(match[4]), operator=operator, value=match[1])
    return None


def _constant(text: str) -> bool:
    """Whether it is known before the table is read: it has no column and no query of its own."""
    bare = _TEXT.sub("''", text)
    return _ANY_COLUMN.search(bare) is None and "SubPlan" not in bare and not bare.startswith("ALL ")


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _conjuncts(text: str) -> list[str]:
    """What is joined by AND, each without the parentheses around it."""
    text = _unwrapped(text.strip())
    if not text:
        return []
    parts, depth, begin, at = [], 0, 0, 0
    while at < len(text):
        character = text[at]
        if character in "'\"":
            at = text.index(character, at + 1)
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif depth == 0 and text.startswith(" AND ", at):
            parts.append(text[begin:at])
            begin = at + 5
        at += 1
    parts.append(text[begin:])
    return [_unwrapped(parts[0])] if len(parts) == 1 else [one for part in parts for one in _conjuncts(part)]


def _unwrapped(text: str) -> str:
    """Without the one pair of parentheses that is around all of it."""
    while text.startswith("(") and text.endswith(")"):
        depth, at = 0, 0
        while at < len(text):
            if text[at] in "'\"":
                at = text.index(text[at], at + 1)
            elif text[at] in "()":
                depth += 1 if text[at] == "(" else -1
                if depth == 0 and at < len(text) - 1:
                    return text
            at += 1
        text = text[1:-1]
    return text

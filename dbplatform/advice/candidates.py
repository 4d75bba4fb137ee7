"""Indexes that might help a scan, and what they would cost: by the statistics of the columns and the planner's costs.

The estimate follows the planner's: an index that is read for N of a table's rows fetches so many of its T pages as
Mackert and Lohman's formula says, each at random; where the rows lie in the order of the index, one after the other.
Source: PostgreSQL, src/backend/optimizer/path/costsize.c (cost_index, index_pages_fetched).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dbplatform.advice.catalog import Catalog, ColumnStatistics, Table, column_statistics
from dbplatform.advice.plans import Comparison, Scan
from dbplatform.advice.words import size_words
from dbplatform.postgres.connection import AutocommitConnection

_BLOCK = 8192
#: What the planner supposes of a range whose ends it does not know (DEFAULT_INEQ_SEL, DEFAULT_RANGE_INEQ_SEL).
_OPEN_RANGE, _CLOSED_RANGE = 1 / 3, 0.005
_CONTAINED = 0.001
#: A plain disk reads, and a processor sorts, about so much: build times are told as what they are, rough.
_BYTES_PER_S, _ROWS_PER_S = 200 << 20, 2_000_000
_MOST_COLUMNS = 3
_WIDE = 500
_DAY = 86_400.0

Statistics = Callable[[str], ColumnStatistics | None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that might help: the table, the columns in their order, how many of them are compared by equality."""

    table: Table = field(compare=False)
    name: str
    columns: tuple[str, ...]
    method: str = "btree"
    equal: int = 0


def candidates(scan: Scan, table: Table, statistics: Statistics) -> list[Candidate]:
    """The indexes that might help a scan, those of fewer columns first. Pure but for the statistics."""
    equal = _columns(scan.filter, "=")
    # Those with the most different values first: an index is shared best by the statements that ask for these.
    equal.sort(key=lambda column: -_distinct(statistics(column), table))
    ranges = [one for one in _columns(scan.filter, "<", ">", "<=", ">=") if one not in equal]
    wanted: list[tuple[tuple[str, ...], int]] = [((column,), 1) for column in equal]
    if len(equal) > 1:
        wanted.append((tuple(equal[:_MOST_COLUMNS]), min(len(equal), _MOST_COLUMNS)))
    for column in ranges:
        wanted += [((column,), 0), ((*equal[: _MOST_COLUMNS - 1], column), min(len(equal), _MOST_COLUMNS - 1))]
    if scan.order and scan.limit is not None:
        order = tuple(column for column in scan.order if column not in equal)
        wanted.append(((*equal[: _MOST_COLUMNS - 1], *order), min(len(equal), _MOST_COLUMNS - 1)))
    for column, _ in scan.joined:
        wanted += [((column,), 1), (tuple(dict.fromkeys((column, *equal[: _MOST_COLUMNS - 1]))), 1)]
    name = str(table.relation)
    found = [
        Candidate(table, name, columns, "btree", n)
        for columns, n in wanted
        if columns and not any(_wide(statistics(column)) for column in columns)
    ]
    for column in _columns(scan.filter, "@>"):
        known = statistics(column)
        if known is not None and (known.type == "jsonb" or known.type.endswith("[]")):
            found.append(Candidate(table, name, (column,), "gin", 0))
    return sorted(dict.fromkeys(found), key=lambda one: len(one.columns))


def _columns(filter_: tuple[Comparison, ...], *operators: str) -> list[str]:
    return list(dict.fromkeys(one.column for one in filter_ if one.operator in operators))


def _wide(statistics: ColumnStatistics | None) -> bool:
    """Whether some values may not fit into an entry of a B-tree, which has 2,704 bytes at most."""
    return statistics is not None and statistics.width > _WIDE


def _distinct(statistics: ColumnStatistics | None, table: Table) -> float:
    return statistics.values(table.rows) if statistics is not None else 0.0


def estimate(scan: Scan, candidate: Candidate, catalog: Catalog, statistics: Statistics) -> float:
    """What the scan would cost by the index, in the planner's units; infinite where too little is known."""
    table = candidate.table
    first = statistics(candidate.columns[0])
    if first is None or not table.rows or not table.pages:
        return math.inf
    lookups = next((rows for column, rows in scan.joined if column == candidate.columns[0]), None)
    selectivity = _selectivity(scan, candidate, table, statistics, joined=lookups is not None)
    if scan.limit is not None and scan.order and candidate.columns[candidate.equal :] == scan.order:
        # The first rows in their order: as many are read as the filter lets through in the end.
        share = max(scan.rows / (table.rows * max(selectivity, 1e-9)), 1e-6)
        rows = min(scan.limit / min(1.0, share), table.rows * selectivity)
        return fetch_cost(catalog, table, rows, 0.0)
    if selectivity >= 1:
        return math.inf
    correlation = first.correlation if len(candidate.columns) == 1 else first.correlation * 0.75
    once = fetch_cost(catalog, table, max(1.0, table.rows * selectivity), correlation)
    return once if lookups is None else once * max(1.0, lookups)


def _selectivity(scan: Scan, candidate: Candidate, table: Table, statistics: Statistics, *, joined: bool) -> float:
    share = 1.0
    for at, column in enumerate(candidate.columns):
        found = statistics(column)
        operators = [one.operator for one in scan.filter if one.column == column]
        if "@>" in operators:
            share *= _CONTAINED
        elif "=" in operators or (joined and at == 0):
            share *= 1 / _distinct(found, table) if found is not None else 1.0
        elif operators:
            share *= _CLOSED_RANGE if len(set(operators)) > 1 else _OPEN_RANGE
            break
        else:
            break
    return share


def fetch_cost(catalog: Catalog, table: Table, rows: float, correlation: float) -> float:
    """What it costs to find and fetch so many rows by an index."""
    costs, pages = catalog.settings, float(max(table.pages, 1))
    fetched = min(2 * pages * rows / (2 * pages + rows), pages, rows)
    at_random = max(1.0, fetched) * costs["random_page_cost"]
    share = rows / max(table.rows, 1.0)
    in_order = costs["random_page_cost"] + math.ceil(share * pages) * costs["seq_page_cost"]
    reading = at_random + correlation * correlation * (min(in_order, at_random) - at_random)
    height = math.ceil(math.log2(max(table.rows, 2))) + 50 * 3
    leaves = rows / 200 * costs["random_page_cost"]
    per_row = costs["cpu_tuple_cost"] + costs["cpu_index_tuple_cost"] + 2 * costs["cpu_operator_cost"]
    return reading + leaves + height * costs["cpu_operator_cost"] + rows * per_row


def write_cost(catalog: Catalog) -> float:
    """What one more index costs each row that is written: a page of it found, read at random at times, and changed."""
    return 0.5 * catalog.settings["random_page_cost"] + 150 * catalog.settings["cpu_operator_cost"]


def index_bytes(connection: AutocommitConnection, table: Table, columns: tuple[str, ...]) -> int:
    """How large a B-tree would become, about."""
    width = 0
    for column in columns:
        found = column_statistics(connection, table.relation, column)
        width += math.ceil((found.width if found is not None else 16) / 8) * 8
    return max(_BLOCK * 2, round(table.rows * (4 + 8 + width) / 0.9))


def index_cost(
    connection: AutocommitConnection, catalog: Catalog, table: Table, columns: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """What building and keeping an index costs, in words and in numbers."""
    size = index_bytes(connection, table, columns)
    seconds = max(1.0, 2 * table.pages * _BLOCK / _BYTES_PER_S + table.rows / _ROWS_PER_S)
    # Of less than a day nothing is said of the days to come: a load would count as a habit.
    per_day = table.index_writes / catalog.counting_s * _DAY if catalog.counting_s >= _DAY else None
    writes = "each write" if per_day is None else f"each of about {per_day:,.0f} writes a day"
    hot = table.hot_updated / table.updated if table.updated else None
    words = f"about {seconds:,.0f} s to build, {size_words(size)}, an entry for {writes}"
    return words, {
        "index bytes": size,
        "build seconds": round(seconds, 1),
        "writes a day": None if per_day is None else round(per_day),
        "updates that are HOT": None if hot is None else round(hot, 3),
    }

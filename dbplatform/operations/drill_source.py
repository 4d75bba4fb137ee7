"""The live source beside the copy of a drill: what it says of the checks in doubt, and which read the same rows.

It is read where the database is read at all: on its replica while that keeps up. Its snapshot ends before the copy is
read. The same rows are those of every table that the statement of a check reads; where it calls a function of somebody,
which may read any table, those of all tables.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.backups.contents import list_tables, read_content, ready_to_read
from dbplatform.backups.manifest import TableContent
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import read
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AnyConnection, SnapshotConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.attempt import Refused, attempt
from dbplatform.quality.checks.base import Check
from dbplatform.quality.examination import examined
from dbplatform.quality.masks import MaskedColumnMissing, Masks
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult

_CANCEL_EVERY_S = 0.2

# What is immutable reads no table, by its own word.
_FUNCTIONS = """
    select distinct p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname not in ('pg_catalog', 'information_schema') and p.provolatile <> 'i'
"""

_Contents = Mapping[Relation, TableContent | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the source says now of the checks in doubt."""

    results: Mapping[str, CheckResult]
    same_rows: frozenset[str]
    """The checks all of whose tables hold the same on both sides."""
    same_columns: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    results: Mapping[str, CheckResult]
    columns: Any
    tables: Mapping[str, frozenset[Relation] | None]
    """What each check reads; none where it cannot be told."""
    contents: _Contents
    """None of a table that could not be read."""


def ask(
    platform: Platform, declared: Declared, copy: Target, policy: TablePolicy, names: Collection[str], ends: float
) -> Live | None:
    """Ask the source of the checks ``names``; None where it cannot be asked.

    A drill needs the source no more than a restore does. Raises ``TableMissing`` and ``MaskedColumnMissing``.
    """
    masks = Masks.declared(declared.database.quality)
    try:
        if platform.existing_target(declared) is None or left_ms(ends) == 0:
            return None
        said = read(platform, declared, partial(_said, policy=policy, names=names, masks=masks, ends=ends)).value
        with connect(copy, work="drill checks") as connection, ended_at(connection, ends):
            ready_to_read(connection)
            wanted = {table for tables in said.tables.values() for table in tables or ()}
            same = {table for table in wanted if _same(connection, table, said.contents[table])}
            return Live(
                results=said.results,
                same_rows=frozenset(name for name, tables in said.tables.items() if tables and tables <= same),
                same_columns=said.columns == catalog.columns(connection, policy.table),
            )
    except (catalog.TableMissing, MaskedColumnMissing):
        raise
    except PlatformError:
        return None


def left_ms(ends: float) -> int:
    """What is left of the time, by the monotonic clock; 0 where it is over."""
    return max(0, round((ends - time.monotonic()) * 1000))


@contextmanager
def ended_at(connection: AnyConnection, ends: float) -> Iterator[None]:
    """Cancel every statement of the block that runs at ``ends`` or later."""
    over = Event()

    def watch() -> None:
        patience = max(0.0, ends - time.monotonic())
        while not over.wait(patience):
            patience = _CANCEL_EVERY_S
            connection.cancel_safe(timeout=5)

    thread = Thread(target=watch, name="drill-checks-limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _said(source: Target, *, policy: TablePolicy, names: Collection[str], masks: Masks, ends: float) -> _Said:
    with connect(source, work="drill checks") as session, ended_at(session, ends):
        ready_to_read(session)
        with examined(session, policy, only=names, statement_timeout_ms=max(1, left_ms(ends)), masks=masks) as asked:
            moment = asked.connection
            answers = {result.name: result for result in asked.result.checks}
            # What the source itself cannot run tells nothing of the rows.
            tables = {
                check.name: None if answers[check.name].status == "errored" else _tables_of(moment, policy.table, check)
                for check in asked.checks
            }
            wanted = {table for some in tables.values() for table in some or ()}
            contents = {table: _content(moment, table) for table in sorted(wanted, key=str)}
            return _Said(
                results=answers, columns=catalog.columns(moment, policy.table), tables=tables, contents=contents
            )


def _tables_of(moment: SnapshotConnection, table: Relation, check: Check) -> frozenset[Relation] | None:
    """The tables that a check reads, as PostgreSQL plans it; none where it cannot be told."""
    statement = check.statement(table)
    if statement is None:
        return frozenset({table})
    found = attempt(moment, table, partial(_planned, moment, statement))
    return None if isinstance(found, Refused) else found | {table}


def _planned(moment: SnapshotConnection, statement: sql.Composable) -> frozenset[Relation]:
    explain = sql.SQL("explain (verbose, format json) {}").format(statement)
    [(plan,)] = moment.execute(explain).fetchall()
    planned = set(_relations(plan))
    said = f"{statement.as_string(moment)} {plan}"
    functions = (name for (name,) in moment.execute(_FUNCTIONS).fetchall())
    if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said) for name in functions):
        planned |= set(list_tables(moment))
    return frozenset(planned)


def _relations(plan: Any) -> Iterator[Relation]:
    """The tables in a plan as EXPLAIN writes it."""
    if isinstance(plan, list):
        for part in plan:
            yield from _relations(part)
    elif isinstance(plan, dict):
        if "Relation Name" in plan and "Schema" in plan:
            yield Relation(plan["Schema"], plan["Relation Name"])
        for part in plan.values():
            yield from _relations(part)


def _content(moment: SnapshotConnection, table: Relation) -> TableContent | None:
    found = attempt(moment, table, partial(read_content, moment, table))
    return None if isinstance(found, Refused) else found


def _same(copy: AnyConnection, table: Relation, content: TableContent | None) -> bool:
    """Whether the copy holds that content; false where it cannot be told."""
    if content is None or not catalog.columns(copy, table):
        return False
    try:
        return read_content(copy, table) == content
    except psycopg.Error:
        if copy.broken or copy.closed:
            raise
        return False

"""The plan of a statement, without running it, or by running it in a transaction that is rolled back.

A statement with parameters (``$1``), as ``pg_stat_statements`` keeps it, has a generic plan: that of a prepared
statement, on every version (``EXPLAIN (GENERIC_PLAN)`` exists from 16 on, and by the extended protocol takes the
parameters for NULL). What is sent is one statement in any case: the server refuses a second one behind a semicolon.
Source: PostgreSQL manual, "EXPLAIN", "PREPARE", "Message Flow" (extended query).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import RawCursor

from dbplatform.errors import UsageError, WorkError
from dbplatform.monitoring.probes.collecting import MARK
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.prepared import alone, force_generic, has_parameters, prepared, readable

STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 2_000


class NotExplained(UsageError):
    """PostgreSQL does not explain it: {reason}."""


class Writes(UsageError):
    """To measure it, it has to run, and it writes."""


class NeedsValues(UsageError):
    """To measure it, it has to run, and it has parameters."""


class TookTooLong(WorkError):
    """It was ended after {seconds:g} s, before it had come to its end."""


class PlanTooLarge(UsageError):
    """Its plan has {bytes:,} bytes, and at most {most:,} are shown here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of one statement, as text and as PostgreSQL's JSON."""

    query: str
    generic: bool
    analyzed: bool
    text: str
    document: Any
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The document of ``explain --json``."""
        return {
            "query": self.query,
            "generic": self.generic,
            "analyzed": self.analyzed,
            "plan": self.document,
            "notes": list(self.notes),
        }


def explain(
    connection: AutocommitConnection,
    query: str,
    *,
    analyze: bool = False,
    may_write: bool = False,
    as_reader: bool = False,
    timeout_ms: int = STATEMENT_TIMEOUT_MS,
    most_bytes: int | None = None,
) -> Plan:
    """The plan of one statement; with ``analyze`` it runs, and what it took is in the plan.

    Everything happens in a transaction that is rolled back, read only unless ``may_write``. Without ``analyze`` nothing
    runs; locks as for the planning of the statement: ACCESS SHARE, or ROW EXCLUSIVE where it writes. A statement that
    writes and is measured keeps its row locks until it has ended, and sequences do not go back. ``as_reader``: by the
    rights of ``pg_read_all_data`` where the user may take them on, so that a superuser's session plans as a reader's.
    ``timeout_ms`` is the statement timeout of the session. A plan that is larger than ``most_bytes`` as JSON stays with
    the server; only what can be prepared is explained then, and nothing measured. Raises ``NotExplained``, ``Writes``,
    ``NeedsValues``, ``TookTooLong`` and ``PlanTooLarge``.
    """
    query = readable(query)
    generic = has_parameters(query)
    if analyze and generic:
        raise NeedsValues(hint="Write values in place of $1, or leave --analyze out for the generic plan.")
    text, document = "", None
    try:
        with connection.transaction(force_rollback=True):
            if not may_write:
                connection.execute("set transaction read only")
            if as_reader:
                _become_reader(connection)
            if analyze:
                document = _ask(connection, query, "analyze, buffers, format json")
            elif generic or most_bytes is not None:
                text, document = _prepared(connection, query, most_bytes)
            else:
                document = _ask(connection, query, "format json")
                text = _ask(connection, query, "format text")
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise Writes(hint="--rollback runs it and rolls it back; it holds its locks while it runs.") from error
    except psycopg.errors.QueryCanceled as error:
        hint = "Leave --analyze out." if analyze else "Ask for the plan of a part of it."
        raise TookTooLong(seconds=timeout_ms / 1000, hint=hint) from error
    except psycopg.Error as error:
        raise NotExplained(reason=_reason(error), hint=error.diag.message_hint) from error
    document = document[0] if isinstance(document, list) else document
    return Plan(
        query=query,
        generic=generic,
        analyzed=analyze,
        text=text or "\n".join(_lines(document["Plan"], 0)),
        document=document,
        notes=notes(document),
    )


def _become_reader(connection: AutocommitConnection) -> None:
    """For this transaction, the rights to read every table and nothing else; they do not bypass row-level security."""
    with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
        connection.execute("set local role pg_read_all_data")


def _ask(connection: AutocommitConnection, query: str, options: str) -> Any:
    """Rows of an EXPLAIN: the text of all lines, or the document."""
    with RawCursor(connection) as cursor:
        rows = alone(cursor, f"{MARK}explain ({options}) {query}").fetchall()
    return "\n".join(row[0] for row in rows) if "text" in options else rows[0][0]


def _prepared(connection: AutocommitConnection, query: str, most_bytes: int | None) -> tuple[str, Any]:
    """The generic plan: of a prepared statement, which the NULLs for its parameters do not change."""
    force_generic(connection)
    with prepared(connection, query) as one:
        if most_bytes is not None and (size := one.plan_bytes()) > most_bytes:
            raise PlanTooLarge(bytes=size, most=most_bytes, hint="At the machine: dbplatform explain")
        lines = one.explain("format text")
        (document,) = one.explain("format json")
        return "\n".join(lines), document[0]


def _reason(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error).strip().splitlines()[0]).rstrip(".")


def notes(document: Any) -> tuple[str, ...]:
    """What a person new to plans should look at first."""
    found: list[str] = []
    for node in _nodes(document["Plan"]):
        table = node.get("Relation Name")
        rows = node.get("Actual Rows", node.get("Plan Rows", 0)) or 0
        dropped = node.get("Rows Removed by Filter", 0) or 0
        if node["Node Type"] == "Seq Scan" and node.get("Filter") and (dropped > 10 * max(rows, 1) and dropped > 1_000):
            found.append(
                f"{table} is read whole and {dropped:,} rows are thrown away: an index on its filter may help."
            )
        elif node["Node Type"] == "Seq Scan" and node.get("Filter") and (node.get("Total Cost") or 0) > 10_000:
            found.append(f"{table} is read whole for a filter: an index on what it compares may help.")
        if str(node.get("Sort Method", "")).startswith("external"):
            found.append(
                f"A sort went to the disk ({node.get('Sort Space Used', 0):,} kB): more work_mem, or an index."
            )
        planned, seen = node.get("Plan Rows"), node.get("Actual Rows")
        if planned and seen is not None and max(planned, seen) > 100 * max(1, min(planned, seen)):
            found.append(f"{node['Node Type']}: {planned:,} rows were expected, {seen:,} came. ANALYZE may help.")
    return tuple(dict.fromkeys(found))


def _nodes(plan: Any) -> list[Any]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]


def _lines(plan: Any, depth: int) -> list[str]:
    """A plan that was measured, a line for each node."""
    on = f" on {plan['Relation Name']}" if "Relation Name" in plan else ""
    index = f" using {plan['Index Name']}" if "Index Name" in plan else ""
    measured = (
        f"  ({plan['Actual Total Time']:.3f} ms, {plan['Actual Rows']:,} rows, {plan['Actual Loops']} loops, "
        f"{plan.get('Shared Hit Blocks', 0) + plan.get('Shared Read Blocks', 0):,} blocks)"
        if "Actual Total Time" in plan
        else ""
    )
    arrow = "" if depth == 0 else "  " * depth + "-> "
    below = [line for child in plan.get("Plans", []) for line in _lines(child, depth + 1)]
    return [f"{arrow}{plan['Node Type']}{index}{on}{measured}", *below]

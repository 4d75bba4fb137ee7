"""What the service has to know beside the ledger: which databases are declared, their limits, how one is explained."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import psycopg

from dbplatform.monitoring.explain import NotExplained, Plan
from dbplatform.monitoring.thresholds import ThresholdPolicy, default_thresholds
from dbplatform.operations import recorded, slow_statements, watching
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.web.answers import Busy, DatabaseGone, NothingToAsk
from dbplatform.web.push.service import Pushed

_EXPLAIN_TIMEOUT_MS: Final = 5_000
_EXPLAINED_AT_ONCE: Final = 2
_PLAN_BYTES: Final = 1_000_000
#: SQLSTATE classes whose words are of the statement itself, where they point at a place in it: syntax, names, features.
_OF_THE_STATEMENT: Final = ("42", "0A", "25")


def _nothing_to_ask(name: str, _: str) -> Plan:
    raise NothingToAsk(database=name, hint="Declare it, and run it once: dbplatform run DATABASE.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """By default nothing is declared, and the limits are those that experts use."""

    names: Sequence[str] = ()
    """The declared databases."""
    limits: Callable[[str], Sequence[ThresholdPolicy]] = lambda _: default_thresholds()
    """The limits that hold for a database, by its name."""
    explain: Callable[[str, str], Plan] = _nothing_to_ask
    """The plan of a statement on a database; nothing runs."""


def location_of(platform: Platform) -> Location:
    """That of a project, as it is declared now."""
    places = threading.BoundedSemaphore(_EXPLAINED_AT_ONCE)
    return Location(
        names=tuple(platform.declarations.by_name),
        limits=partial(watching.limits_of, platform),
        explain=partial(_explained, platform, places),
    )


def pushed_of(platform: Platform) -> Pushed:
    """What a project lets be watched, as it is declared now."""
    by_name = platform.declarations.by_name
    return Pushed(
        names=tuple(by_name),
        live={name: declared.database.live for name, declared in by_name.items() if declared.database.live},
        target_of=partial(_place, platform),
        masked={
            name: {(table.table, column) for table in declared.database.quality for column in table.mask}
            for name, declared in by_name.items()
        },
        ledger=platform.ledger.target,
    )


def _place(platform: Platform, name: str) -> Target | None:
    """Where a database is; None where it was never made. Raises ``DatabaseGone``, and what ``existing_target`` does."""
    declared = platform.declarations.by_name.get(name)
    if declared is None:
        return None
    target = platform.existing_target(declared)
    if target is None and recorded.has_begun(platform.ledger, name):
        raise DatabaseGone(database=name, hint=f"See what is wrong: dbplatform doctor {name}")
    return target


def _explained(platform: Platform, places: threading.BoundedSemaphore, name: str, query: str) -> Plan:
    """The plan, for somebody who is not at this machine: a reader's rights, five seconds, two at once, 1 MB.

    The planner runs functions that are declared immutable or stable, and an error of theirs could quote rows: of what
    went wrong only that is told which the statement itself explains. Whatever is found by reading it has a position in
    it; what a function of the planner says has none, whichever SQLSTATE it has.
    """
    declared = platform.declarations.by_name.get(name)
    if declared is None or platform.existing_target(declared) is None:
        return _nothing_to_ask(name, query)
    if not places.acquire(blocking=False):
        raise Busy(hint="Ask again in some seconds.")
    try:
        return slow_statements.explained(
            platform, declared, query, as_reader=True, timeout_ms=_EXPLAIN_TIMEOUT_MS, most_bytes=_PLAN_BYTES
        )
    except NotExplained as error:
        cause = error.__cause__
        state = (cause.sqlstate or "") if isinstance(cause, psycopg.Error) else ""
        if _is_of_the_statement(cause, state):
            raise
        words = f"its planning failed with SQLSTATE {state}" if state else "it cannot be planned"
        raise NotExplained(reason=words, hint=f"At the machine: dbplatform explain {name}") from None
    finally:
        places.release()


def _is_of_the_statement(cause: BaseException | None, state: str) -> bool:
    points = isinstance(cause, psycopg.Error) and cause.diag.statement_position is not None
    return points and state.startswith(_OF_THE_STATEMENT)

"""Drift of a declared database: what its migrations make is built in a scratch database once, and kept as a trial."""

from __future__ import annotations

from typing import Any

from dbplatform.archiving import tables
from dbplatform.declaration.loading import Declared
from dbplatform.migrations.drift import engine as drifting
from dbplatform.migrations.drift.engine import Blueprint, DriftReport, Expected
from dbplatform.migrations.errors import SchemaDrifted
from dbplatform.operations import trials
from dbplatform.operations.platform import Platform
from dbplatform.operations.schema import policy_of
from dbplatform.operations.scratch import scratch_space
from dbplatform.partitioning.retired import read_retired
from dbplatform.postgres.connection import AutocommitConnection, connect
from dbplatform.postgres.identifiers import Relation


def drift(platform: Platform, declared: Declared, *, run_id: str | None = None) -> DriftReport:
    """How the schema differs from the one that its migrations make; what the platform has made does not count.

    Only reads the declared database. Where files, history and server are as in an earlier comparison, no scratch
    database is made. Raises ``CannotCompare``, ``HistoryMismatch`` and ``NoScratchServer``.
    """
    with connect(platform.target(declared), work="migrate drift") as live:
        return _drift(platform, declared, live, run_id)


def refuse_drift(platform: Platform, declared: Declared, live: AutocommitConnection) -> None:
    """Raise ``SchemaDrifted`` where the schema is not what its migrations make."""
    found = _drift(platform, declared, live, None).differences
    if found:
        raise SchemaDrifted(
            database=declared.name,
            first=found[0],
            more=f" (and {len(found) - 1} more)" if len(found) > 1 else "",
            hint=f"Mend it: dbplatform migrate drift {declared.name} shows how. To take it over by a migration, leave "
            "block_on_drift out until that is applied.",
        )


def known_drift(
    platform: Platform, declared: Declared, live: AutocommitConnection
) -> tuple[dict[str, Any], DriftReport] | None:
    """What the migrations make, in numbers, and how the schema differs, where an earlier comparison has found it out.

    Makes no scratch database; None where nothing is known. Only reads. Raises as ``drift``.
    """
    plan = _plan(declared, live)
    known = trials.newest(platform, declared, "schema", trials.fingerprint(*plan.fingerprint))
    if known is None:
        return None
    expected = Expected.from_json(known.result)
    report = _compared(declared, live, plan, expected)
    return {"version": str(plan.version) if plan.version else None, **expected.counts}, report


def _drift(platform: Platform, declared: Declared, live: AutocommitConnection, run_id: str | None) -> DriftReport:
    plan = _plan(declared, live)
    expected = _expected(platform, declared, plan, run_id)
    return _compared(declared, live, plan, expected)


def _compared(declared: Declared, live: AutocommitConnection, plan: Blueprint, expected: Expected) -> DriftReport:
    roles = declared.database.roles
    return drifting.drift(
        live,
        plan,
        expected,
        known=_made_here(declared, live),
        roles=roles.roles(declared.name).values() if roles is not None else (),
    )


def _plan(declared: Declared, live: AutocommitConnection) -> Blueprint:
    policy, folders = policy_of(declared)
    partitioned = [table.table for table in declared.database.partitioned_tables]
    return drifting.blueprint(live, folders, policy, partitioned=partitioned, database=declared.name)


def _made_here(declared: Declared, live: AutocommitConnection) -> dict[Relation, str]:
    """The tables that no migration makes, because the platform has, or has set them aside."""
    return dict.fromkeys(tables.holding(live), "holds archived rows") | {
        retired.relation: f"was a partition of {policy.table} until it was retired"
        for policy in declared.database.partitioned_tables
        for retired in read_retired(live, policy.table)
        if retired.is_there
    }


def _expected(platform: Platform, declared: Declared, plan: Blueprint, run_id: str | None) -> Expected:
    of = trials.fingerprint(*plan.fingerprint)
    known = trials.newest(platform, declared, "schema", of)
    if known is not None:
        return Expected.from_json(known.result)
    with scratch_space(platform, declared) as space, connect(space.target, work="migrate drift") as empty:
        built = drifting.build(empty, plan, server_wide=not space.own_server)
    trials.keep(platform, declared, "schema", of, built.as_json(), run_id=run_id)
    return built

"""What maintenance would do: all kinds of work in one list, the most urgent first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from dbplatform.maintenance.analyze import analyze_items
from dbplatform.maintenance.catalog import Catalog, oids_of, read_catalog
from dbplatform.maintenance.errors import OnStandby
from dbplatform.maintenance.model import Item, Kind, NotPossible, Plan
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.maintenance.reindex import reindex_items
from dbplatform.maintenance.repack import find_repacker, repack_items
from dbplatform.maintenance.settings import autovacuum_items, statistics_items
from dbplatform.maintenance.vacuum import vacuum_items
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AutocommitConnection, Target
from dbplatform.postgres.identifiers import Relation


def plan_maintenance(
    connection: AutocommitConnection,
    target: Target,
    policy: MaintenancePolicy,
    *,
    database: str,
    kinds: Collection[Kind],
    table: Relation | None = None,
    index: Relation | None = None,
    may_count: Callable[[], bool] = lambda: True,
) -> Plan:
    """What is due of these kinds, in the whole database or for one table with its partitions, or one index of it. Only
    reads.

    Indexes and tables whose bloat is counted by pgstattuple are read for that, each when ``may_count`` says so; lock:
    ACCESS SHARE. ``target`` is where pg_repack would run. Raises ``OnStandby`` and ``TableMissing``.
    """
    only = oids_of(connection, table) if table is not None else None
    if table is not None and not only:
        require_table(connection, table)
    catalog = read_catalog(
        connection,
        database=database,
        min_bytes=policy.due.min_size,
        only=only,
        exclude=policy.exclude,
        may_count=may_count,
    )
    if catalog.in_recovery:
        raise OnStandby(database=database, hint="Declare the URL of the primary in connection.url_env.")
    if index is not None:
        catalog = replace(catalog, indexes={oid: one for oid, one in catalog.indexes.items() if one.relation == index})
    found = list(_found(connection, catalog, target, policy, kinds))
    items = [one for one in found if isinstance(one, Item)]
    # A table that is written anew has new indexes.
    anew = {one.table_oid for one in items if one.verb == "repack"}
    items = [one for one in items if not (one.verb == "reindex" and one.table_oid in anew)]
    return Plan(
        database=database,
        items=tuple(sorted(items, key=lambda one: (-one.priority, one.bytes, str(one.subject)))),
        not_possible=tuple(one for one in found if isinstance(one, NotPossible)),
    )


def _found(
    connection: AutocommitConnection,
    catalog: Catalog,
    target: Target,
    policy: MaintenancePolicy,
    kinds: Collection[Kind],
) -> Iterator[Item | NotPossible]:
    due = policy.due
    if "statistics" in kinds:
        yield from statistics_items(connection, catalog, due)
    if "autovacuum" in kinds:
        yield from autovacuum_items(catalog, due)
    if "analyze" in kinds:
        yield from analyze_items(catalog, due)
    if "vacuum" in kinds:
        yield from vacuum_items(catalog, due)
    if "repack" in kinds:
        yield from repack_items(connection, catalog, policy, find_repacker(catalog, target, policy))
    if "reindex" in kinds:
        yield from reindex_items(connection, catalog, due)

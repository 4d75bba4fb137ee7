"""All advice for a database: what its catalog, its statistics and its statements ask for. It only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dbplatform.advice.catalog import Catalog, ReplicaUse, read_catalog
from dbplatform.advice.foreign_keys import foreign_key_indexes
from dbplatform.advice.indexes import needless_indexes
from dbplatform.advice.missing import missing_indexes
from dbplatform.advice.model import Advice, Findings, Kind, Named
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.server import pools_advice, read_server, setting_advice
from dbplatform.advice.tables import Bloated, SequenceUse, autovacuum_settings, bloat, sequences
from dbplatform.postgres.connection import AutocommitConnection

_ORDER: tuple[Kind, ...] = (
    "invalid_index",
    "missing_index",
    "foreign_key_index",
    "duplicate_index",
    "unused_index",
    "overlapping_index",
    "sequence",
    "autovacuum",
    "bloat",
    "pools",
    "setting",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known from elsewhere: the ledger's statements and metrics, the replica, the machine, the declarations.

    ``unknown`` has the reason for each kind of advice for which something is missing.
    """

    statements: Sequence[Named] = ()
    replica: ReplicaUse | None = None
    memory: int | None = None
    bloated: Sequence[Bloated] = ()
    sequences: Sequence[SequenceUse] = ()
    pools: Mapping[str, int] = field(default_factory=dict)
    places: int = 0
    pools_matter: bool = True
    """Whether the server is one where all pools may be full at once."""
    unknown: Mapping[Kind, str] = field(default_factory=dict)


def find_advice(
    connection: AutocommitConnection, policy: AdvicePolicy, around: Surroundings, *, database: str
) -> Findings:
    """Everything that is advised now, what matters most first.

    Nothing runs but questions to the catalog, and EXPLAIN of each statement; locks as for its planning.
    """
    unexamined: dict[Kind, str] = dict(around.unknown)
    catalog = read_catalog(connection, database=database)
    server = read_server(connection)
    missing: list[Advice] = []
    if "missing_index" not in unexamined:
        missing, unplanned = missing_indexes(connection, catalog, policy, around.statements)
        if unplanned and not missing and len(unplanned) == len(around.statements):
            unexamined["missing_index"] = f"no statement could be planned, such as {unplanned[0]}"
    found = [
        *needless_indexes(catalog, policy, around.replica, unexamined),
        *missing,
        *foreign_key_indexes(connection, catalog, _columns(catalog, missing)),
        *autovacuum_settings(catalog, policy, server.settings),
        *bloat(catalog, around.bloated),
        *sequences(catalog, around.sequences),
        *pools_advice(database, around.pools, around.places, matters=around.pools_matter),
        *setting_advice(database, server, policy, around.memory),
    ]
    found.sort(key=lambda one: (one.severity != "warning", _ORDER.index(one.kind)))
    return Findings(database=database, advice=tuple(found), unexamined=unexamined)


def _columns(catalog: Catalog, missing: Sequence[Advice]) -> dict[int, list[tuple[str, ...]]]:
    """By table, the columns of the indexes that are advised."""
    planned: dict[int, list[tuple[str, ...]]] = {}
    for advice in missing:
        if advice.action is not None and advice.table is not None:
            table = catalog.table_named(*advice.table)
            if table is not None:
                planned.setdefault(table.oid, []).append(advice.action.columns)
    return planned

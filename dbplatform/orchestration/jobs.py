"""The jobs of one declared database, over its assets. When they run by themselves: ``schedules``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from dbplatform.declaration.loading import Declared
from dbplatform.orchestration import keys
from dbplatform.orchestration.cadences import CADENCES, UPKEEP, Cadence, work_of
from dbplatform.orchestration.runs import MAX_RUNTIME, policy_of
from dbplatform.orchestration.workers import step_executor

DATABASE = "dbplatform/database"


def jobs_of(declared: Declared, assets: Sequence[dg.AssetsDefinition]) -> list[UnresolvedAssetJobDefinition]:
    """The main job, named as the database, and one per capability."""
    database = declared.name
    every = [key for asset in assets for key in asset.keys]
    # A run of the whole graph has no period, rehearses and times nothing, and leaves upkeep and the server's copies to
    # schedules.
    physical = [keys.physical_backup(database), keys.recovery_drill(database), keys.physical_retention(database)]
    apart = {keys.rehearsal(database), *physical}
    graph = [key for key in every if key not in apart and key.path[1] not in ("periods", *UPKEEP)]
    jobs = [_job(declared, database, graph, "The whole graph: migrate, partition, seed, check, report.")]
    if keys.migrations(database) in every:
        jobs.append(_job(declared, f"{database}_migrate", [keys.migrations(database)], "Apply pending migrations."))
        rehearsed = [keys.rehearsal(database)]
        jobs.append(_job(declared, f"{database}_rehearse", rehearsed, "Rehearse what is pending on a restored copy."))
    checked = [key for key in every if key.path[1] == "tables" or key == keys.quality_report(database)]
    if checked:
        jobs.append(_job(declared, f"{database}_quality", checked, "Run the data-quality checks; write the report."))
    if keys.backup(database) in every:
        proven = [keys.backup(database), keys.restore_drill(database)]
        words = "Take a backup, prove it by a restore, and remove old ones."
        jobs.append(_job(declared, f"{database}_backup", [*proven, keys.backup_retention(database)], words))
        jobs.append(_job(declared, f"{database}_drill", proven[1:], "Prove the newest backup by a restore."))
    if keys.physical_backup(database) in every:
        words = "Take a base backup of the server, prove it by a recovery, and remove what is too old."
        jobs.append(_job(declared, f"{database}_physical", physical, words))
        jobs.append(_job(declared, f"{database}_recovery_drill", physical[1:2], "Prove the newest base backup."))
    if keys.benchmarks(database) in every:
        words = "Time the declared queries and scripts, and compare them with the baseline."
        jobs.append(_job(declared, f"{database}_benchmarks", [keys.benchmarks(database)], words))
    for policy in declared.database.partitioned_tables:
        words = f"One {policy.interval} of {policy.table}, or many: made where missing, archived where due, checked."
        name, key = keys.periods_name(database, policy.table), keys.periods(database, policy.table)
        jobs.append(_job(declared, name, [key], words))
    jobs += [job for cadence in CADENCES if (job := _cadence_job(declared, cadence, every)) is not None]
    return jobs


def _cadence_job(
    declared: Declared, cadence: Cadence, every: Sequence[dg.AssetKey]
) -> UnresolvedAssetJobDefinition | None:
    """The work of a cadence that the database has; None where it has none."""
    work = list(work_of(declared.database, cadence))
    found = [key for key in every if any(one.check is None and one.names(key.path[1:]) for one in work)]
    checks = [
        dg.AssetCheckKey(key, one.check)
        for one in work
        if one.check is not None
        for key in every
        if one.names(key.path[1:])
    ]
    if not found:
        return None
    names = ", ".join("/".join(key.path[1:]) for key in found)
    return _job(declared, f"{declared.name}_{cadence}", found, f"{cadence.capitalize()}: {names}.", checks=checks)


def _job(
    declared: Declared,
    name: str,
    selection: Sequence[dg.AssetKey],
    description: str,
    *,
    checks: Sequence[dg.AssetCheckKey] = (),
) -> UnresolvedAssetJobDefinition:
    ends = policy_of(declared).end_after
    chosen: dg.AssetSelection = dg.AssetSelection.assets(*selection)
    return _JobOfOne(
        name=name,
        selection=chosen | dg.AssetSelection.checks(*checks) if checks else chosen,
        description=description,
        tags={
            DATABASE: declared.name,
            **({MAX_RUNTIME: f"{ends.timedelta.total_seconds():.0f}"} if ends is not None else {}),
        },
        executor_def=step_executor(),
    )


class _JobOfOne(UnresolvedAssetJobDefinition):
    """A job with assets of one database.

    Dagster makes the graph of a job by going through all assets of the location; with hundreds of databases that is
    most of the time in which it loads. Here it goes through those of the database.
    """

    def resolve(
        self,
        asset_graph: AssetGraph,
        default_executor_def: dg.ExecutorDefinition | None = None,
        resource_defs: Mapping[str, dg.ResourceDefinition] | None = None,
    ) -> dg.JobDefinition:
        own = _by_database(asset_graph).get((self.tags or {})[DATABASE], asset_graph)
        return super().resolve(own, default_executor_def, resource_defs)


_split: WeakKeyDictionary[AssetGraph, dict[str, AssetGraph]] = WeakKeyDictionary()


def _by_database(graph: AssetGraph) -> dict[str, AssetGraph]:
    """The graph of each database, known by the first part of its keys; made once for a location."""
    if graph not in _split:
        found: dict[str, set[dg.AssetsDefinition]] = defaultdict(set)
        for asset in graph.assets_defs:
            for key in (*asset.keys, *(check.asset_key for check in asset.check_keys)):
                found[key.path[0]].add(asset)
        _split[graph] = {database: AssetGraph.from_assets(assets) for database, assets in found.items()}
    return _split[graph]

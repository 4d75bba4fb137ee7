"""Partitioned tables as partitioned assets: a period, such as a month, can be chosen, run again and back-filled.

``<database>/periods/<table>`` and its job stand beside the graph, because a run of the whole graph has no period. The
asset ``partitions/<table>`` still makes what is missing ahead.

Where the grid is one that a cron expression can say, and the declared start is known without a connection, Dagster
gets time windows. Otherwise (whole numbers, ten days, ``start: auto``) it gets the periods of the partitions that there
are: ``partitions/<table>`` tells them after each run.
"""

import warnings
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import periods
from dbplatform.operations.periods import Period
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata
from dbplatform.partitioning.bounds import cell, check_interval, key_format
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.words import Interval

_MINUTE = 60_000_000


def period_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """One asset per partitioned table."""
    with warnings.catch_warnings():
        # That Dagster may still change backfill_policy is nothing that a user can mend.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [_periods(platform, declared, policy) for policy in declared.database.partitioned_tables]


def partitions_of(database: str, policy: PartitionPolicy, *, now: datetime) -> dg.PartitionsDefinition[Any]:
    """The periods that can be chosen; time windows reach from the declared start to the one that covers ``now``."""
    form, cron = key_format(policy.interval), _cron(policy)
    if form is None or cron is None or policy.start == "auto":
        return dg.DynamicPartitionsDefinition(name=keys.periods_name(database, policy.table))
    assert not isinstance(policy.start, int)
    begin = now - policy.start.relativedelta if isinstance(policy.start, Interval) else policy.start
    lower = cell(policy.interval, min(begin, now), policy.zone).lower
    return dg.TimeWindowPartitionsDefinition(
        start=lower.astimezone(policy.zone).strftime(form),
        fmt=form,
        cron_schedule=cron,
        timezone=policy.time_zone,
        end_offset=1,
    )


def tell_periods(instance: dg.DagsterInstance, platform: Platform, declared: Declared, policy: PartitionPolicy) -> None:
    """Let Dagster know the periods of a table's partitions, where it cannot know them by itself."""
    told = partitions_of(declared.name, policy, now=datetime.now(UTC))
    if isinstance(told, dg.DynamicPartitionsDefinition) and told.name is not None:
        instance.add_dynamic_partitions(told.name, periods.known_keys(platform, declared, policy))


def _cron(policy: PartitionPolicy) -> str | None:
    """When a period begins; None where no cron expression says it."""
    interval = check_interval(policy.interval)
    if isinstance(interval, int):
        return None
    if interval.months:
        return f"0 0 1 */{interval.months} *" if 12 % interval.months == 0 else None
    if interval.days:
        return {1: "0 0 * * *", 7: "0 0 * * 1"}.get(interval.days)
    minutes, rest = divmod(interval.microseconds, _MINUTE)
    if rest:
        return None
    if minutes % 60 == 0:
        return f"0 */{minutes // 60} * * *"
    return f"*/{minutes} * * * *" if 60 % minutes == 0 else None


def _periods(platform: Platform, declared: Declared, policy: PartitionPolicy) -> dg.AssetsDefinition:
    key = keys.periods(declared.name, policy.table)

    @dg.asset(
        key=key,
        deps=[keys.partitions(declared.name, policy.table)],
        partitions_def=partitions_of(declared.name, policy, now=datetime.now(UTC)),
        # A back-fill is one run over its periods: each takes a moment, an interpreter for each takes longer.
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=f"One {policy.interval} of {policy.table}: its partition is made where it is missing, archived "
        "where an archive by partition is declared and the period is due, its rows are checked, counted and hashed.",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "table"},
    )
    def period(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> None:
        with step(context, f"{declared.name}/periods/{policy.table.words}"):
            for chosen in context.partition_keys:
                if options.dry_run:
                    found = periods.look(platform, declared, policy, chosen)
                else:
                    found = periods.bring_into_order(platform, declared, policy, chosen, run_id=context.run.run_id)
                context.log.info(f"{chosen}: {found.state}, {found.rows:,} rows, content hash {found.content_hash}")
                context.add_asset_metadata(
                    {"dry run": options.dry_run, **_published(found)}, asset_key=key, partition_key=chosen
                )

    return period


def _published(found: Period) -> dict[str, Any]:
    document = found.as_json()
    failed = [check for check in document["checks"] if check["status"] in ("failed", "errored")]
    return {
        "state": found.state,
        "dagster/row_count": found.rows,
        "content hash": found.content_hash,
        "bytes": found.bytes,
        "from": str(document["lower"]),
        "to": str(document["upper"]),
        "partitions": ", ".join(document["partitions"]),
        "rows in archives": found.archived_rows,
        **({"archive": found.archive} if found.archive is not None else {}),
        "failed checks": len(failed),
        **table_metadata("checks", document["checks"], ("name", "status", "failed_rows", "message")),
    }

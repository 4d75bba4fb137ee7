"""What a person may declare of a database: the ``attributes`` of its ``defs.yaml``.

The policies of the capabilities are put together here.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dbplatform.declaration.freeze import Freeze, FreezePolicy
from dbplatform.declaration.later import Later
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.pools import Environment, PoolPolicy
from dbplatform.postgres.words import DurationWords, Interval, Policy, TimeZone
from dbplatform.seeding.policy import SeedPolicy

if TYPE_CHECKING:
    from dbplatform.advice.policy import AdvicePolicy
    from dbplatform.alerting.policy import NotifyPolicy
    from dbplatform.archiving.policy import ArchivePolicy
    from dbplatform.backups.policy import BackupPolicy
    from dbplatform.benchmarking.policy import BenchmarkPolicy
    from dbplatform.capacity.policy import CapacityPolicy
    from dbplatform.declaration.reports import ReportPolicy
    from dbplatform.declaration.runs import RunPolicy
    from dbplatform.live.policy import LivePolicy
    from dbplatform.monitoring.audits.policy import HealthPolicy
    from dbplatform.monitoring.thresholds import ThresholdPolicy
    from dbplatform.partitioning.policy import PartitionPolicy
    from dbplatform.quality.policy import FailedRowsPolicy, TablePolicy
    from dbplatform.roles.policy import RolesPolicy
else:
    AdvicePolicy = Annotated[Any, Later("dbplatform.advice.policy", "AdvicePolicy")]
    NotifyPolicy = Annotated[Any, Later("dbplatform.alerting.policy", "NotifyPolicy")]
    ArchivePolicy = Annotated[Any, Later("dbplatform.archiving.policy", "ArchivePolicy")]
    BackupPolicy = Annotated[Any, Later("dbplatform.backups.policy", "BackupPolicy")]
    CapacityPolicy = Annotated[Any, Later("dbplatform.capacity.policy", "CapacityPolicy")]
    BenchmarkPolicy = Annotated[Any, Later("dbplatform.benchmarking.policy", "BenchmarkPolicy")]
    HealthPolicy = Annotated[Any, Later("dbplatform.monitoring.audits.policy", "HealthPolicy")]
    LivePolicy = Annotated[Any, Later("dbplatform.live.policy", "LivePolicy")]
    ThresholdPolicy = Annotated[Any, Later("dbplatform.monitoring.thresholds", "ThresholdPolicy")]
    PartitionPolicy = Annotated[Any, Later("dbplatform.partitioning.policy", "PartitionPolicy")]
    FailedRowsPolicy = Annotated[Any, Later("dbplatform.quality.policy", "FailedRowsPolicy")]
    ReportPolicy = Annotated[Any, Later("dbplatform.declaration.reports", "ReportPolicy")]
    RunPolicy = Annotated[Any, Later("dbplatform.declaration.runs", "RunPolicy")]
    TablePolicy = Annotated[Any, Later("dbplatform.quality.policy", "TablePolicy")]
    RolesPolicy = Annotated[Any, Later("dbplatform.roles.policy", "RolesPolicy")]

#: What Dagster takes for an owner.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TEAM = re.compile(r"team:[A-Za-z0-9_.-]+")

#: Databases of the platform itself and of PostgreSQL, on the embedded server.
_TAKEN = ("dagster", "dbplatform_ledger", "postgres", "template0", "template1")

#: The jobs of a database are named as it is, with one of these behind.
JOBS = (
    "migrate", "rehearse", "backup", "drill", "physical", "recovery_drill",
    "restore", "quality", "review", "benchmarks", "daily", "weekly", "monthly", "quarterly",
)  # fmt: skip


def _owner(value: str) -> str:
    if not (_EMAIL.fullmatch(value) or _TEAM.fullmatch(value)):
        raise ValueError(f"{value!r} is no owner; write team:<name> or an e-mail address")
    return value


def _on_breach(value: Any) -> dict[str, str]:
    from dbplatform.declaration.on_breach import checked  # not for a declaration without it: it knows every metric

    return checked(value)


Owner = Annotated[str, AfterValidator(_owner)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ConnectionPolicy(Policy):
    """Where the database is, and what kind of place that is."""

    url_env: Variable | None = Field(
        default=None,
        description="The environment variable that holds the URL; left out: a database of that name on the embedded "
        "server.",
    )
    scratch_url_env: Variable | None = Field(
        default=None,
        description="The environment variable that holds the URL of a server for scratch databases, where restores are "
        "proven and migrations rehearsed; its user may create databases. Left out: the embedded server for drills; for "
        "rehearsals the database's own, unless it is production or the user may not create databases there.",
    )
    pgbouncer_url_env: Variable | None = Field(
        default=None,
        description="The environment variable that holds the URL of PgBouncer's administration console (its database "
        "pgbouncer), for a user in stats_users: its pools are measured, too.",
    )
    replica_url_env: Variable | None = Field(
        default=None,
        description="The environment variable that holds the URL of a streaming replica: data-quality checks read "
        "there, and on the primary while it is away or too far behind.",
    )
    replica_lag: DurationWords = Field(
        default=Interval.parse("30 seconds"),
        json_schema_extra={"default": "30 seconds"},
        description="How long a read waits until the replica has all that was written before it; then the primary is "
        "read.",
    )
    environment: Environment = Field(
        default="development", description="The safety profile and that of the pool: production refuses seeding."
    )
    pool: PoolPolicy | None = Field(
        default=None, description="What differs from the pool's profile of the environment, for your own assets."
    )
    replica_pool: PoolPolicy | None = Field(
        default=None, description="The same of a pool on the replica, in place of what pool says; left out: as pool."
    )

    @model_validator(mode="after")
    def _has_a_replica(self) -> ConnectionPolicy:
        if self.replica_pool is not None and self.replica_url_env is None:
            raise ValueError("replica_pool is of a pool on the replica; name its URL by replica_url_env")
        return self


class Database(Policy):
    """One declared database."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,47}$",
        description="Asset key prefix and group: lower case letters, digits and underscores.",
    )
    description: str | None = Field(default=None, description="What the database is for, shown in the Dagster UI.")
    owners: list[Owner] = Field(default=[], description="team:<name> or an e-mail address.")
    connection: ConnectionPolicy = Field(default_factory=ConnectionPolicy)
    migrations: MigrationPolicy | None = Field(default=None, description="SQL files by Flyway's names.")
    seeds: list[SeedPolicy] = Field(
        default=[], description="Folders of data, one per profile; the first is the default."
    )
    partitioned_tables: list[PartitionPolicy] = Field(default=[], description="Range partitions, made ahead.")
    archives: list[ArchivePolicy] = Field(default=[], description="Old rows, moved into files behind a proven backup.")
    backups: BackupPolicy | None = Field(default=None, description="Dumps, how long they are kept, and their proof.")
    quality: list[TablePolicy] = Field(default=[], description="The data-quality checks of each table.")
    failed_rows: FailedRowsPolicy | None = Field(
        default=None, description="How many of the rows that fail a check are kept, and for how long."
    )
    reports: ReportPolicy | None = Field(
        default=None, description="Where the reports of the checks are kept, for how long, and by when one is reviewed."
    )
    thresholds: list[ThresholdPolicy] = Field(
        default=[], description="Limits in place of those that experts use, a metric each."
    )
    health: HealthPolicy | None = Field(
        default=None, description="Findings of the audits of structure and security that are meant."
    )
    live: list[LivePolicy] = Field(default=[], description="Tables whose changes are pushed on /ws.")
    notify: list[NotifyPolicy] = Field(default=[], description="Who is told of alerts.")
    advice: AdvicePolicy | None = Field(
        default=None, description="How much evidence advice needs, and what is known of the server's machine."
    )
    runs: RunPolicy | None = Field(
        default=None, description="How long a run may last, and what becomes of one whose process is gone."
    )
    capacity: CapacityPolicy | None = Field(
        default=None, description="The room that there is, and how long before it runs out that is a finding."
    )
    benchmarks: BenchmarkPolicy | None = Field(
        default=None, description="Named queries and pgbench scripts that are timed, and within what bounds."
    )
    time_zone: TimeZone = Field(
        default_factory=lambda: ZoneInfo("UTC"),
        json_schema_extra={"default": "UTC"},
        description="Whose clock the schedules and freezes are on, such as Europe/Vienna; left out: UTC.",
    )
    roles: RolesPolicy | None = Field(
        default=None, description="Least-privilege roles of the database, made by dbplatform roles apply."
    )
    maintenance: MaintenancePolicy = Field(default_factory=MaintenancePolicy)
    freeze: list[FreezePolicy] = Field(default=[], description="Times in which nothing changes it by itself.")
    on_breach: Annotated[dict[str, str], BeforeValidator(_on_breach)] = Field(
        default={},
        description="Work that begins by itself when an alert of a metric fires, such as dead_tuple_ratio: "
        "maintenance/vacuum.",
    )

    @property
    def freezes(self) -> tuple[Freeze, ...]:
        """The declared freezes on the clock of the database, in their order."""
        return tuple(sorted((one.on_clock(self.time_zone) for one in self.freeze), key=lambda one: one.starts_at))

    def frozen(self, now: datetime) -> Freeze | None:
        """The freeze in force at the aware time; of several the one that ends last."""
        here = [one for one in self.freezes if one.is_in_force(now)]
        return max(here, key=lambda one: one.ends_at, default=None)

    @model_validator(mode="after")
    def _named_once(self) -> Database:
        for what, names in (
            ("profile", [seed.profile for seed in self.seeds]),
            ("partitioned table", [str(p.table) for p in self.partitioned_tables]),
            ("archive", [archive.name for archive in self.archives]),
            ("table under quality", [str(t.table) for t in self.quality]),
            ("threshold of", [threshold.metric for threshold in self.thresholds]),
            ("live table", [str(policy.table) for policy in self.live]),
            ("channel", [channel.url_env for channel in self.notify]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"the {what} {twice[0]} is declared twice")
        return self

    @model_validator(mode="after")
    def _alerts_that_fire(self) -> Database:
        if self.on_breach:
            from dbplatform.declaration.on_breach import never_fires  # as above

            silent = never_fires(self.on_breach, {threshold.metric for threshold in self.thresholds})
            if silent is not None:
                raise ValueError(f"{silent} has no limit, so no alert of it fires; declare one in thresholds")
        return self

    @model_validator(mode="after")
    def _own_names(self) -> Database:
        if self.name == "dbplatform":
            raise ValueError("the name 'dbplatform' is the platform's own, in alerts and roles; choose another name")
        if self.connection.url_env is None and self.name in _TAKEN:
            raise ValueError(f"the name {self.name!r} is taken on the embedded server; choose another name")
        if self.archives and self.backups is None:
            raise ValueError("archives need backups, because rows leave only behind a proven one; declare backups: {}")
        wanted = sorted(set(self.on_breach.values()) & {"backup", "restore_drill"})
        if wanted and self.backups is None:
            raise ValueError(f"on_breach wants {wanted[0]}, and there are no backups; declare backups: {{}}")
        for policy in self.live:
            masked = {name for checked in self.quality if checked.table == policy.table for name in checked.mask}
            shown = masked if policy.columns is None else masked & set(policy.columns)
            if shown:
                raise ValueError(
                    f"the live table {policy.table} would push {min(shown)}, which quality masks; declare the columns "
                    "that may be pushed without it"
                )
        lost = {p.table for p in self.partitioned_tables if p.retain and p.retain.then == "drop_without_archive"}
        if lost & {archive.table for archive in self.archives}:
            table = min(lost & {archive.table for archive in self.archives})
            raise ValueError(f"{table} has an archive, and retain drops its rows without one; leave one of them out")
        retained = {p.table for p in self.partitioned_tables if p.retain}
        for archive in self.archives:
            if archive.by == "partition" and archive.table not in retained:
                raise ValueError(
                    f"the archive {archive.name} takes partitions of {archive.table}, and nothing says when they are "
                    "old; declare retain for it in partitioned_tables"
                )
            if archive.by == "partition" and [a.table for a in self.archives].count(archive.table) > 1:
                raise ValueError(f"{archive.table} has an archive by partition and another one; leave one of them out")
        words: dict[str, str] = {}
        for relation in {p.table for p in self.partitioned_tables} | {t.table for t in self.quality}:
            other = words.setdefault(relation.word, str(relation))
            if other != str(relation):
                raise ValueError(f"{other} and {relation} would be one asset; rename one of them")
        return self

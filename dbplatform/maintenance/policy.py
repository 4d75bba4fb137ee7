"""What may be declared of maintenance: when it comes, what is due, how long and how gently it works.

Source of the defaults: PostgreSQL manual, "Routine Vacuuming" and "Routine Reindexing".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from dbplatform.maintenance.cleanup.policy import CleanupPolicy
from dbplatform.postgres.daily_window import WindowWords
from dbplatform.postgres.words import CronOrNever, DurationWords, Interval, Policy, RelationName, SizeWords

Share = Annotated[float, Field(gt=0, lt=1)]


class DuePolicy(Policy):
    """From when on a table or an index wants care."""

    dead_rows: Share = Field(
        default=0.1, description="VACUUM: so large a share of the rows is dead, and more than 1,000 are."
    )
    changed_rows: Share = Field(
        default=0.1,
        description="ANALYZE: so large a share of the rows was written since the last one, and more than 500 were.",
    )
    freeze: Share = Field(
        default=0.5,
        description="VACUUM (FREEZE): the oldest row has come so far towards autovacuum_freeze_max_age, or its "
        "multixact towards autovacuum_multixact_freeze_max_age.",
    )
    index_bloat: Share = Field(
        default=0.3,
        description="REINDEX: so large a share of the index holds nothing, beyond what its fillfactor leaves free. "
        "An index that is filled in random order settles at about a quarter.",
    )
    table_bloat: Share = Field(default=0.3, description="pg_repack: so large a share of the table holds nothing.")
    min_size: SizeWords = Field(
        default=10 << 20,
        json_schema_extra={"default": "10MB"},
        description="Smaller tables and indexes are not rebuilt.",
    )
    large_table_rows: int = Field(
        default=1_000_000,
        ge=1,
        description="From so many rows on a table gets autovacuum settings and statistics targets of its own.",
    )


class BudgetPolicy(Policy):
    """How much one run may take. What has begun is ended; nothing begins once it is spent."""

    time: DurationWords = Field(
        default=Interval.parse("4 hours"), json_schema_extra={"default": "4 hours"}, description="How long a run works."
    )
    size: SizeWords | None = Field(
        default=None, description="The bytes of the tables and indexes that a run works on, all together."
    )


class LimitsPolicy(Policy):
    """What others may feel. Work pauses while a limit is exceeded."""

    lock_timeout: DurationWords = Field(
        default=Interval.parse("2 seconds"),
        json_schema_extra={"default": "2 seconds"},
        description="Work waits no longer for a lock, and tries again; when another session has waited so long for "
        "work, that is ended, and tried again later.",
    )
    active_sessions: int = Field(
        default=50, ge=1, description="Nothing begins while more sessions than these are at work on the server."
    )
    waiting_sessions: int = Field(
        default=3, ge=0, description="Nothing begins while more sessions than these wait for a lock."
    )
    replica_lag: SizeWords = Field(
        default=50 << 20,
        json_schema_extra={"default": "50MB"},
        description="Nothing begins while a replica has more WAL than this to replay.",
    )
    pause: DurationWords = Field(
        default=Interval.parse("10 minutes"),
        json_schema_extra={"default": "10 minutes"},
        description="A run that had to wait so long at one time ends, and says what is left.",
    )
    vacuum_cost_delay_ms: float = Field(
        default=2.0,
        ge=0,
        le=100,
        description="VACUUM and ANALYZE rest so long whenever they have used up vacuum_cost_limit; 0: never.",
    )


class NamedQuery(Policy):
    """A query whose time is taken before and after maintenance."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", description="Lower case letters, digits and underscores.")
    sql: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="It only reads: it runs in a read-only transaction, three times, each ended after 10 s."
    )


class MaintenancePolicy(Policy):
    """When the database is cared for, in its time zone, and how gently."""

    daily: CronOrNever = Field(default="0 2 * * *", description="When the job <database>_daily runs; false: never.")
    weekly: CronOrNever = Field(default="0 3 * * 0", description="When the job <database>_weekly runs; false: never.")
    monthly: CronOrNever = Field(default="0 4 1 * *", description="When the job <database>_monthly runs; false: never.")
    quarterly: CronOrNever = Field(
        default="0 5 1 1,4,7,10 *", description="When the job <database>_quarterly runs; false: never."
    )
    window: WindowWords | None = Field(
        default=None,
        description="Maintenance begins nothing outside these hours of the day, with a time zone unless in UTC: "
        "22:00-05:00 Europe/Vienna. What is left is for the next run.",
    )
    budget: BudgetPolicy = Field(default_factory=BudgetPolicy)
    limits: LimitsPolicy = Field(default_factory=LimitsPolicy)
    due: DuePolicy = Field(default_factory=DuePolicy)
    settings: Literal["propose", "apply"] = Field(
        default="propose",
        description="Autovacuum settings and statistics targets of large tables: proposed with SQL and undo, to be "
        "written as a migration, because drift tells what none has made; or applied by optimize full.",
    )
    exclude: list[RelationName] = Field(
        default=[], description="Tables that maintenance leaves alone, with their partitions and indexes."
    )
    cleanup: CleanupPolicy = Field(default_factory=CleanupPolicy, description="What the clean-up removes and tells.")
    queries: list[NamedQuery] = Field(
        default=[], description="Queries whose time is taken before and after what was changed."
    )

    @model_validator(mode="after")
    def _named_once(self) -> MaintenancePolicy:
        names = [query.name for query in self.queries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the query {twice[0]} is declared twice")
        return self

"""The documents of the API: what each field is, so that the OpenAPI description is true.

Where the command line prints the same (``health --json``), the document is the same. Fields may be added to it; one
that this module does not name yet is passed on as it is. One module, because it is one description, in the order of the
API's page.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

Time = Annotated[
    str,
    BeforeValidator(lambda value: value.isoformat() if isinstance(value, datetime) else value),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
RunUrl = Annotated[str | None, Field(description="Its run in the Dagster UI, where there is one.")]


class Document(BaseModel):
    """The base of all that is answered."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Listed(Document):
    """A part of a list, the newest first."""

    next: str | None = Field(description="The address of the next part; null: this is the last one.")


class DatabaseSummary(Document):
    """A database, with the verdict of its newest finished run of checks; that a newer one goes on is told beside it."""

    name: str
    declared: bool
    begun: bool = Field(description="Anything was done or measured on it; false: it is still to be run, or made.")
    verdict: Literal["passed", "failed", "errored"] | None
    run_id: str | None
    started_at: Time | None
    finished_at: Time | None
    unfinished_since: Time | None
    report: str | None = Field(description="The address of its newest report.")
    unreviewed: int
    measured_at: Time | None = Field(description="When its metrics were collected last.")
    score: int | None = Field(ge=0, le=100, description="The health score of then.")
    grade: Literal["A", "B", "C", "D", "F"] | None
    critical_alerts: int = Field(description="Those that fire, acknowledged and silenced ones, too.")
    warning_alerts: int
    running: int = Field(description="Operations that have no end yet.")


class Databases(Document):
    """Every database that is declared, or of which something is recorded."""

    databases: list[DatabaseSummary]


class MetricValue(Document):
    """One value that was measured."""

    value: float | None
    unit: str
    sample: float | None
    labels: dict[str, str]
    detail: str
    complete: bool


class MetricsDocument(Document):
    """What was measured last: the document of ``metrics --json``."""

    database: str
    at: Time
    metrics: dict[str, MetricValue]
    absent: dict[str, str]
    unmeasured: dict[str, str]
    missing: list[str]
    worst: dict[str, list[dict[str, Any]]]


class PointOfTime(Document):
    """A value, or the average of a step with its least and greatest."""

    at: Time
    value: float | None
    least: float | None
    greatest: float | None


class MetricHistory(Document):
    """How a metric was before, the oldest value first."""

    database: str
    metric: str
    unit: str
    history: list[PointOfTime]


class DeductionDocument(Document):
    """The points that one breached limit takes."""

    metric: str
    severity: Literal["warning", "critical"]
    value: float | None
    limit: str
    points: int
    cause: str
    advice: str
    document: str
    sample: float | None
    sample_unit: str | None


class HealthDocument(Document):
    """The score of what was measured last, with every deduction: the document of ``health --json``."""

    database: str
    at: Time
    score: int = Field(ge=0, le=100)
    grade: Literal["A", "B", "C", "D", "F"]
    deductions: list[DeductionDocument]
    judged: int
    metrics: dict[str, MetricValue]
    not_judged: dict[str, str]
    missing: list[str]


class Blocked(Document):
    """A session that waits for a lock."""

    pid: int
    blocked_by: list[int] = Field(description="Who holds it back; 0 is a prepared transaction.")
    seconds: float | None
    mode: str | None
    relation: str | None


class Lock(Document):
    """A session of the tree of locks, with those that wait for it; who waits for several stands below one."""

    pid: int
    seconds: float | None = Field(description="How long it waits; null: it waits for nobody.")
    mode: str | None
    relation: str | None
    waiting: list[Lock]


class Connections(Document):
    """The sessions of the database as they were counted last; who they are, asks ``dbplatform connections`` of it."""

    database: str
    at: Time
    used_ratio: float | None = Field(description="Of the sessions that ordinary users may open on the server.")
    active: float | None
    idle: float | None
    idle_in_transaction: float | None
    waiting: float | None
    locks: float | None
    longest_transaction_seconds: float | None
    longest_statement_seconds: float | None
    pool_used_ratio: float | None = Field(description="Of the fullest pool of PgBouncer, where one is declared.")
    pool_waiting_clients: float | None
    blocked: list[Blocked] = Field(description="Those that wait longest, ten at most.")
    locks_tree: list[Lock] = Field(description="As a tree, each session once: at its top who holds the others back.")
    unmeasured: dict[str, str]


class SlowStatement(Document):
    """What one statement cost in the window."""

    queryid: str
    query: str
    calls: int
    total_seconds: float
    mean_seconds: float
    rows: int
    shared_blocks_hit: int
    shared_blocks_read: int
    temp_blocks_written: int
    findings: list[str]


class SlowQueries(Document):
    """The statements that take long: the document of ``slow-queries --json``."""

    database: str
    since: Time
    min_mean_seconds: float
    statements: list[SlowStatement]
    reason: str | None


class Recommendation(Document):
    """One advice: an entry of ``advise list --json``."""

    id: str
    database: str
    kind: str
    subject: str
    state: str
    severity: Literal["warning", "info"]
    reason: str
    evidence: dict[str, Any]
    confidence: str
    sql: str
    undo_sql: str | None
    applicable: bool
    lock: str
    cost: str
    document: str
    statements: list[dict[str, Any]]
    first_seen_at: Time
    changed_at: Time
    note: str
    receipt: dict[str, Any]


class Recommendations(Listed):
    """The open advice, warnings first."""

    database: str
    advice: list[Recommendation]


class AlertDocument(Document):
    """One alert: an entry of ``alerts list --json``."""

    id: int
    database: str
    key: str
    metric: str
    labels: dict[str, str]
    state: Literal["pending", "firing", "acknowledged", "silenced", "resolved"]
    severity: Literal["warning", "critical"]
    since: Time
    fired_at: Time | None
    resolved_at: Time | None
    acknowledged_by: str | None
    acknowledged_at: Time | None
    value: float | None
    limit: str
    cause: str
    preceded_by: str
    advice: str
    runbook: str
    silenced_until: Time | None


class Alerts(Listed):
    """The open alerts, or the past ones, too."""

    database: str
    alerts: list[AlertDocument]


class OneAlert(Document):
    """The alert as it is now."""

    alert: AlertDocument


class SilenceDocument(Document):
    """One silence."""

    id: int
    database: str | None
    metric: str | None
    starts_at: Time
    ends_at: Time
    reason: str
    created_by: str


class Silences(Document):
    """The silences that hold, or are to come."""

    silences: list[SilenceDocument]


class OneSilence(Document):
    """The silence as it is now."""

    silence: SilenceDocument


class BackupDocument(Document):
    """One backup: an entry of ``backup list --json``."""

    id: str
    kind: Literal["logical", "physical"]
    status: str
    scope: str
    proven_at: Time | None
    bytes: int | None
    sha256: str | None
    location: str
    started_at: Time
    taken_at: Time | None
    finished_at: Time | None
    damage: str | None
    error: str | None
    run_id: str | None = Field(description="The Dagster run that made it; null: the command line did.")
    run_url: RunUrl


class DrillDocument(Document):
    """One restore that was to prove a backup."""

    backup_id: str
    status: str
    started_at: Time
    finished_at: Time | None
    rto_seconds: float | None
    rpo_seconds: float | None
    target: str | None = Field(description="The moment to which a physical backup was recovered.")
    run_url: RunUrl
    errors: list[str]


class Backups(Listed):
    """The backups, and the newest drills that were to prove them."""

    database: str
    backups: list[BackupDocument]
    drills: list[DrillDocument]


class CheckDocument(Document):
    """The outcome of one check: an entry of ``check --json``. The failing rows are in the report alone."""

    name: str
    type: str
    column: str | None
    status: Literal["passed", "failed", "errored", "accepted"]
    severity: Literal["warn", "error"]
    blocking: bool
    owner: str | None
    failed_rows: int | None
    considered_rows: int | None
    sample: str | None
    sampled_rows: int | None
    kept_rows: int
    value: float | None
    tolerance: str | None
    message: str
    sql: str | None
    key_columns: list[str]
    value_columns: list[str]
    masked_columns: list[str]
    rows_removed_at: Time | None
    quarantined_rows: int | None
    quarantine_table: str | None
    accepted_until: str | None
    accepted_reason: str | None


class TableDocument(Document):
    """What one run read of one table."""

    table: str
    row_count: int | None
    seconds: float
    partitions: dict[str, int] | None = Field(description="How many there are, were read, and had not changed.")
    checks: list[CheckDocument]


class QualityRunDocument(Document):
    """One run of checks: how many ended how."""

    database: str
    run_id: str
    started_at: Time
    finished_at: Time | None
    verdict: Literal["passed", "failed", "errored"] | None
    passed: int
    failed: int
    errored: int
    run_url: RunUrl


class Quality(Document):
    """The newest run of checks that has a verdict, and the runs before it, the newest first."""

    database: str
    run_id: str | None
    run_url: RunUrl
    verdict: Literal["passed", "failed", "errored"] | None
    report: str | None
    unreviewed: int
    tables: list[TableDocument]
    runs: list[QualityRunDocument]


class RunDocument(Document):
    """One operation, or one run of checks."""

    kind: str
    status: Literal["running", "succeeded", "failed", "passed", "errored"]
    run_id: str | None
    by: str
    origin: str
    started_at: Time
    finished_at: Time | None
    seconds: float | None
    error: str | None
    url: RunUrl


class Runs(Listed):
    """What was done, the newest first; one that was killed stays ``running``."""

    database: str
    runs: list[RunDocument]


class Horizon(Document):
    """Until when the partitions of a table reach, by what made partitions last."""

    table: str
    until: Time | None
    days: float | None = Field(description="From now on.")
    numbers: int | None = Field(description="Of a table by numbers: how many were left when it was looked at.")
    partitions: int
    default_rows: int
    looked_at: Time


class Unknown(Document):
    """Why a part of the dashboard is not there."""

    part: str
    reason: str


class Dashboard(Document):
    """What a page about one database needs, in one document."""

    database: str
    at: Time
    declared: bool
    begun: bool = Field(description="Anything was done or measured on it; false: it is still to be run, or made.")
    health: HealthDocument | None
    series: dict[str, list[PointOfTime]]
    connections: Connections | None
    slow_queries: SlowQueries
    recommendations: list[Recommendation]
    partitions: list[Horizon]
    backups: Backups
    quality: Quality
    alerts: list[AlertDocument]
    silences: list[SilenceDocument]
    running: list[RunDocument]
    unknown: list[Unknown]
    links: dict[str, str]


class ReviewDocument(Document):
    """One review of a report."""

    id: int
    run_id: str
    by: str
    comment: str
    way: Literal["command line", "service", "dagster"]
    at: Time
    current: bool


class ReviewsMade(Document):
    """The reviews that were noted."""

    reviews: list[ReviewDocument]


class ReportDocument(Document):
    """One report, with what its run found."""

    run_id: str
    database: str
    url: str = Field(description="The address of its page.")
    run_url: RunUrl
    verdict: Literal["passed", "failed", "errored"]
    started_at: Time
    finished_at: Time
    created_at: Time
    tables: int
    checks: int
    failed: int
    errored: int
    sha256: str
    reviewed: bool
    reviews: list[ReviewDocument]


class Reports(Listed):
    """The newest reports."""

    reports: list[ReportDocument]


class PlanDocument(Document):
    """The plan of one statement: the document of ``explain --json``."""

    query: str
    generic: bool
    analyzed: Literal[False]
    plan: dict[str, Any]
    notes: list[str]
    text: str


class ChangeDocument(Document):
    """One entry of the audit log: an entry of ``audit list --json``."""

    at: Time
    actor: str
    way: Literal["command line", "service", "dagster"]
    origin: str
    act: str
    database: str | None
    subject: str
    run_id: str | None
    status: Literal["done", "running", "succeeded", "failed"]
    details: dict[str, Any]


class Changes(Listed):
    """The audit log."""

    changes: list[ChangeDocument]


class Up(Document):
    """The process runs."""

    status: Literal["up"]


class Ready(Document):
    """The ledger answers, and its schema is that of this version."""

    status: Literal["ready"]

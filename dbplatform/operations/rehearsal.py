"""Pending migrations, tried out before they run: on an empty copy of the schema for their plan, on the newest backup.

Both use a scratch database (``scratch``); the declared one is only read. A rehearsal is kept in the ledger, where
``require`` finds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import errors

from dbplatform.backups import catalogue, clone, files, loading
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.errors import UnknownBackup
from dbplatform.backups.manifest import DUMP
from dbplatform.backups.policy import BackupPolicy
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, WorkError
from dbplatform.migrations.compare import Files
from dbplatform.migrations.errors import HistoryMismatch, MigrationFailed, ScriptError
from dbplatform.migrations.marks import TABLE as PROGRESS
from dbplatform.migrations.plan import MigrationPlan, PendingMigration, plan_migrations
from dbplatform.migrations.run import AppliedMigration
from dbplatform.migrations.trials import query_plans
from dbplatform.migrations.trials.live import LiveTable, live_tables
from dbplatform.migrations.trials.query_plans import PlanChange
from dbplatform.migrations.trials.try_out import TrialRun, try_out
from dbplatform.operations import backups, trials
from dbplatform.operations.platform import Platform
from dbplatform.operations.schema import policy_of
from dbplatform.operations.scratch import ScratchSpace, scratch_space
from dbplatform.postgres.catalog import has_tables
from dbplatform.postgres.connection import AutocommitConnection, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import find_programs
from dbplatform.postgres.state import SCHEMA

Basis = Literal["backup", "schema clone"]


class BackupOfAnotherHistory(WorkError):
    """Nothing could be rehearsed on backup {backup}: its history is not that of {database}. {reason}."""


class RehearsalNeeded(WorkError):
    """{scripts} must be rehearsed before {verb} applied to {database}: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPlan:
    """What is pending, what it will lock, and how those tables are now."""

    plan: MigrationPlan
    trial: TrialRun | None
    not_observed: str | None
    """Why nobody could look, in a sentence."""
    tables: tuple[tuple[LiveTable, ...], ...]
    """Of each pending migration."""

    @property
    def mistake(self) -> ScriptError | None:
        """What PostgreSQL cannot parse in a file, and so refuses whatever rows there are; None: nothing is known of it.

        Not of SQL that a file puts together itself: that may be another one where there are rows.
        """
        failed = self.trial.failed if self.trial is not None else None
        if not isinstance(failed, MigrationFailed):
            return None
        cause = failed.__cause__
        if not isinstance(cause, errors.SyntaxError) or cause.diag.statement_position is None:
            return None
        hint = "Mend it: apply would refuse it, too."
        return ScriptError(f"{failed.fields['reason']}.", hint=hint, file=failed.file, line=failed.line)

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate plan --json``, and ``tables`` of each migration; ``seconds`` are unknown."""
        document = self.plan.as_json()
        for migration, tables in zip(document["migrations"], self.tables, strict=False):
            run = self.trial.of(migration["script"]) if self.trial is not None else None
            if run is not None:
                migration["statements"] = [{**s.as_json(), "seconds": None} for s in run.statements]
            migration["observed"] = run is not None and all(s.effect is not None for s in run.statements)
            migration["tables"] = [table.as_json() for table in tables]
        return {**document, "not_observed": self.not_observed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What pending migrations did in a scratch database."""

    database: str
    basis: Basis
    """What the scratch database was filled from; a clone of the schema tells locks and rewrites, not times."""
    backup: Backup | None
    plan: MigrationPlan
    trial: TrialRun
    statements: int | None
    """How many of the statements that cost most were planned before and after; None: they are not known."""
    not_planned: tuple[str, ...]
    """Why statements are not known, or could not be planned before, a sentence each."""
    plan_changes: tuple[PlanChange, ...]
    seconds: float
    """All of it, with the restore."""

    @property
    def passed(self) -> bool:
        """Whether all that is pending ran to its end, and no statement is broken by it."""
        return self.error is None and not any(change.breaks for change in self.plan_changes)

    @property
    def error(self) -> str | None:
        """Why not all that is pending ran."""
        if self.trial.failed is not None:
            return str(self.trial.failed)
        not_run = [pending.script for pending in self.plan.pending if self.trial.of(pending.script) is None]
        if not_run:
            return f"{', '.join(not_run)} did not run: the backup was taken when it was applied. Take a new backup."
        return None

    def as_json(self) -> dict[str, Any]:
        """The document of ``migrate rehearse --json``."""
        taken_at = self.backup.taken_at if self.backup is not None else None
        return {
            "database": self.database,
            "passed": self.passed,
            "basis": self.basis,
            "backup_id": self.backup.id if self.backup is not None else None,
            "backup_taken_at": taken_at.isoformat() if taken_at is not None else None,
            "current": str(self.plan.current) if self.plan.current else None,
            "target": str(self.plan.target) if self.plan.target else None,
            "migrations": [self._of(pending) for pending in self.plan.pending],
            "callbacks": [callback.digest for callback in self.plan.callbacks],
            "error": self.error,
            "statements_planned": self.statements,
            "not_planned": list(self.not_planned),
            "plan_changes": [change.as_json() for change in self.plan_changes],
            "seconds": self.seconds,
        }

    def _of(self, pending: PendingMigration) -> dict[str, Any]:
        run = self.trial.of(pending.script)
        document = self._measured(run) if run is not None else pending.as_json("pending")
        failed = run is None and self.trial.not_run[:1] == (pending.script,)
        return {**document, "status": "failed" if failed else document["status"], "digest": pending.digest}

    def _measured(self, run: AppliedMigration) -> dict[str, Any]:
        """Times of an empty copy say nothing."""
        document = run.as_json()
        if self.basis == "schema clone":
            document["seconds"] = None
            for statement in document["statements"]:
                statement |= {"seconds": None, "wal_bytes": None}
        return document


def plan(platform: Platform, declared: Declared, *, target: str | None = None) -> ObservedPlan:
    """What would be applied, with the locks and rewrites of each statement seen on an empty copy of the schema.

    Only reads, but for the scratch database. Where that cannot be had, or a migration fails without rows, the plan
    says so and is given without.
    """
    policy, folders = policy_of(declared)
    files = Files.of(folders)
    with connect(platform.target(declared), work="migrate plan") as connection:
        planned = plan_migrations(connection, files, policy, target=target, database=declared.name)
        trial, reason = None, None
        if planned.pending:
            try:
                with _cloned(platform, declared) as (space, scratch):
                    trial = try_out(
                        scratch, files, policy, target=target, database=declared.name, server_wide=not space.own_server
                    )
                reason = _why_unseen(trial)
            except PlatformError as error:
                reason = str(error)
        runs = [trial.of(pending.script) if trial is not None else None for pending in planned.pending]
        tables = tuple(
            live_tables(connection, [s.effect for s in run.statements] if run is not None else []) for run in runs
        )
    return ObservedPlan(plan=planned, trial=trial, not_observed=reason, tables=tables)


def rehearse(
    platform: Platform, declared: Declared, *, target: str | None = None, run_id: str | None = None
) -> Rehearsal | None:
    """Run what is pending on the newest backup, or where there is none on an empty copy; None: nothing is pending.

    The plans of the statements that cost most are compared, before and after. Kept in the ledger.
    """
    started = time.monotonic()
    policy, folders = policy_of(declared)
    files = Files.of(folders)
    with connect(platform.target(declared), work="migrate rehearse") as connection:
        planned = plan_migrations(connection, files, policy, target=target, database=declared.name)
        if not planned.pending and not planned.callbacks:
            return None
        top = query_plans.top_statements(connection, history_table=policy.history_table)
    backup = newest_backup(platform, declared)
    filled = restored(platform, declared, backup) if backup is not None else _cloned(platform, declared)
    with filled as (space, scratch):
        before = query_plans.plans(scratch, top.statements)
        try:
            trial = try_out(
                scratch, files, policy, target=target, database=declared.name, server_wide=not space.own_server
            )
        except HistoryMismatch as error:
            raise BackupOfAnotherHistory(
                backup=backup.id if backup is not None else "none",
                database=declared.name,
                reason=error.message.rstrip("."),
                hint=f"Take a new one: dbplatform backup create {declared.name}",
            ) from error
        changes: tuple[PlanChange, ...] = ()
        if trial.failed is None:
            scratch.execute("analyze")
            changes = query_plans.changes(top.statements, before, query_plans.plans(scratch, top.statements))
    unknown = [f"{one.query}: {old.error}" for one, old in zip(top.statements, before, strict=True) if old.error]
    found = Rehearsal(
        database=declared.name,
        basis="backup" if backup is not None else "schema clone",
        backup=backup,
        plan=planned,
        trial=trial,
        statements=None if top.unknown else len(top.statements) - len(unknown),
        not_planned=(top.unknown,) if top.unknown else tuple(unknown),
        plan_changes=changes,
        seconds=time.monotonic() - started,
    )
    digests = [pending.digest for pending in planned.pending]
    trials.keep(platform, declared, "rehearsal", trials.fingerprint(*digests), found.as_json(), run_id=run_id)
    return found


def require(platform: Platform, declared: Declared, planned: MigrationPlan, connection: AutocommitConnection) -> None:
    """Raise ``RehearsalNeeded`` unless the newest rehearsal has run all that is pending, as it is now.

    Callbacks alone may be as old as they are. A database without a table of anybody needs no rehearsal.
    """
    reason = _missing(platform, declared, planned)
    if reason is None or not has_tables(connection):
        return
    scripts = [one.script for one in planned.pending or planned.callbacks]
    first = f"dbplatform backup create {declared.name}, then " if "no backup" in reason else ""
    raise RehearsalNeeded(
        scripts=scripts[0] if len(scripts) == 1 else f"{scripts[0]} and {len(scripts) - 1} more",
        verb="it is" if len(scripts) == 1 else "they are",
        database=declared.name,
        reason=reason,
        hint=f"Run: {first}dbplatform migrate rehearse {declared.name}",
    )


def _why_unseen(trial: TrialRun) -> str | None:
    """Why the plan does not know what each statement does; None: it does."""
    if trial.failed is not None:
        return str(trial.failed)
    if trial.unseen:
        return f"what {len(trial.unseen)} statements did could not be seen; the first: {trial.unseen[0]}"
    return None


def _missing(platform: Platform, declared: Declared, planned: MigrationPlan) -> str | None:
    """Why the newest rehearsal does not count; None: it does."""
    policy, _ = policy_of(declared)
    newest = trials.newest(platform, declared, "rehearsal")
    if newest is None:
        return "there was none"
    if planned.pending and datetime.now(UTC) - newest.tried_at > policy.rehearsal_max_age.timedelta:
        return f"the newest rehearsal is older than {policy.rehearsal_max_age}"
    rehearsed = {m["digest"] for m in newest.result["migrations"] if m["status"] == "applied"}
    callbacks = [callback.digest for callback in planned.callbacks]
    if callbacks != newest.result["callbacks"] or any(pending.digest not in rehearsed for pending in planned.pending):
        return "the newest rehearsal did not run it as it is now"
    if not newest.result["passed"]:
        return "the newest rehearsal did not pass"
    if newest.result["basis"] != "backup" and declared.database.backups is not None:
        return "the newest rehearsal had no backup to run on"
    return None


def newest_backup(platform: Platform, declared: Declared) -> Backup | None:
    """The newest complete backup of a dump; none where there is none."""
    try:
        return catalogue.find_backup(platform.ledger, declared.name)
    except UnknownBackup:
        return None


@contextmanager
def _cloned(platform: Platform, declared: Declared) -> Iterator[tuple[ScratchSpace, AutocommitConnection]]:
    """A scratch database with the schema of the declared one, and how far its migrations are."""
    policy, _ = policy_of(declared)
    with scratch_space(platform, declared) as space:
        clone.clone_schema(
            platform.target(declared),
            space.scratch,
            programs=find_programs(),
            policies=_knows(space),
            with_rows=(policy.history_table, Relation(SCHEMA, PROGRESS)),
        )
        with connect(space.target, work="migrate trial") as connection:
            yield space, connection


@contextmanager
def restored(
    platform: Platform, declared: Declared, backup: Backup
) -> Iterator[tuple[ScratchSpace, AutocommitConnection]]:
    """A scratch database with what the backup holds, its statistics gathered."""
    policy = declared.database.backups or BackupPolicy()
    with scratch_space(platform, declared) as space, catalogue.reading(platform.ledger, backup):
        manifest = catalogue.load_manifest(backup)
        loading.check_server(space.scratch.maintenance, space.target, backup, manifest, roles=False, room=space.room)
        with files.unpacked(backup, manifest, work=backups.work_of(platform)) as folder:
            loading.load(
                backup,
                manifest,
                folder / DUMP,
                space.scratch,
                programs=find_programs(),
                jobs=policy.logical.jobs,
                roles=False,
                policies=_knows(space),
                task=f"restore {declared.name}",
            )
        with connect(space.target, work="migrate trial") as connection:
            connection.execute("analyze")
            yield space, connection


def _knows(space: ScratchSpace) -> bool:
    """Whether the scratch server has every role that the database names."""
    rows = space.scratch.maintenance.execute("select rolname from pg_roles").fetchall()
    return set(space.source.roles) <= {name for (name,) in rows}

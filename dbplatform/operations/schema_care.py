"""What is done to a schema more rarely: undo, test, baseline, repair. A run with nothing to do imports none of it."""

from __future__ import annotations

from collections.abc import Sequence

from dbplatform.declaration.loading import Declared
from dbplatform.migrations import baseline as baselines
from dbplatform.migrations import repair as repairs
from dbplatform.migrations import undo as undoing
from dbplatform.migrations.apply import MigrationReport
from dbplatform.migrations.baseline import BaselinePlan
from dbplatform.migrations.compare import Files
from dbplatform.migrations.drift.objects import query
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.repair import RepairPlan
from dbplatform.migrations.trials.round_trip import RoundTrip, round_trip
from dbplatform.migrations.undo import UndoPlan
from dbplatform.operations import risk, trials
from dbplatform.operations.platform import Platform
from dbplatform.operations.schema import policy_of
from dbplatform.operations.scratch import scratch_space
from dbplatform.operations.trials import Trial
from dbplatform.postgres.connection import AutocommitConnection, connect


def plan_undo(platform: Platform, declared: Declared, *, target: str | None = None) -> UndoPlan:
    """What would be undone; only reads."""
    policy, folders = policy_of(declared)
    with connect(platform.target(declared), work="migrate undo") as connection:
        return undoing.plan_undo(connection, folders, policy, target=target, database=declared.name)


def undo(platform: Platform, declared: Declared, *, target: str | None = None) -> MigrationReport:
    """Undo the newest version, or all down to and including the target; recorded in the ledger.

    Raises ``ProofNeeded`` where backups are declared, data is to be destroyed, and no fresh proof holds it.
    """
    policy, folders = policy_of(declared)
    files = Files.of(folders)
    with platform.writer(declared, "migrate undo") as connection:
        planned = undoing.plan_undo(connection, files, policy, target=target, database=declared.name)
        risk.require_proof(platform, declared, (*planned.pending, *planned.callbacks), connection)
        with platform.ledger.operation(declared.name, "undo") as summary:
            report = undoing.apply_undo(connection, files, policy, target=target, database=declared.name)
            summary.update(report.as_json())
            return report


def plan_baseline(platform: Platform, declared: Declared, *, version: str, description: str) -> BaselinePlan:
    """The baseline that would be written; only reads."""
    policy, _ = policy_of(declared)
    with connect(platform.target(declared), work="migrate baseline") as connection:
        return baselines.plan_baseline(
            connection, policy, version=version, description=description, database=declared.name
        )


def baseline(platform: Platform, declared: Declared, *, version: str, description: str) -> BaselinePlan:
    """Take the database over at a version; recorded in the ledger."""
    policy, _ = policy_of(declared)
    with (
        platform.writer(declared, "migrate baseline") as connection,
        platform.ledger.operation(declared.name, "baseline") as summary,
    ):
        done = baselines.apply_baseline(
            connection, policy, version=version, description=description, database=declared.name
        )
        summary.update(done.as_json())
        return done


def plan_repair(
    platform: Platform,
    declared: Declared,
    *,
    checksums: Sequence[str] = (),
    did: Sequence[str] = (),
    again: Sequence[str] = (),
) -> RepairPlan:
    """What there is to mend in the history; only reads."""
    policy, folders = policy_of(declared)
    with connect(platform.target(declared), work="migrate repair") as connection:
        return repairs.plan_repair(
            connection, folders, policy, checksums=checksums, did=did, again=again, database=declared.name
        )


def repair(
    platform: Platform,
    declared: Declared,
    *,
    checksums: Sequence[str] = (),
    did: Sequence[str] = (),
    again: Sequence[str] = (),
) -> RepairPlan:
    """Mend the history; recorded in the ledger."""
    policy, folders = policy_of(declared)
    with (
        platform.writer(declared, "migrate repair") as connection,
        platform.ledger.operation(declared.name, "repair") as summary,
    ):
        done = repairs.apply_repair(
            connection, folders, policy, checksums=checksums, did=did, again=again, database=declared.name
        )
        summary.update(done.as_json())
        return done


def test(platform: Platform, declared: Declared) -> RoundTrip:
    """Every version up, down and up again in a scratch database, see ``operations.scratch``; kept as a trial.

    The declared database is not touched, only asked for its encoding and locale.
    """
    return _round_trip(platform, declared, run_id=None)[0]


def undo_trial(platform: Platform, declared: Declared, *, run_id: str | None = None) -> Trial:
    """The newest such test of the files as they are now, on this version of the server; made where there is none."""
    policy, folders = policy_of(declared)
    with connect(platform.target(declared), work="migrate test") as connection:
        of = _round_trip_of(Files.of(folders), policy, connection)
    known = trials.newest(platform, declared, "round trip", of)
    return known or _round_trip(platform, declared, run_id=run_id)[1]


def _round_trip(platform: Platform, declared: Declared, *, run_id: str | None) -> tuple[RoundTrip, Trial]:
    policy, folders = policy_of(declared)
    files = Files.of(folders)
    with scratch_space(platform, declared) as space, connect(space.target, work="migrate test") as connection:
        found = round_trip(connection, files, policy, database=declared.name, server_wide=not space.own_server)
        of = _round_trip_of(files, policy, connection)
    return found, trials.keep(platform, declared, "round trip", of, found.as_json(), run_id=run_id)


def _round_trip_of(files: Files, policy: MigrationPolicy, connection: AutocommitConnection) -> str:
    major = connection.info.server_version // 10000
    return trials.fingerprint(files.digest, policy.placeholders, policy.history_table, major, query())

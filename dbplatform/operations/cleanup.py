"""The clean-up of a declared database: what killed work, time and others have left, on its server and on this host.

What each kind is, and how one of it goes, is said by the capability that made it; here stands which there are. Reports
belong to a room above: whoever calls passes them as a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from dbplatform.backups import leftovers as attempts
from dbplatform.backups import scratch
from dbplatform.backups.physical import cluster
from dbplatform.declaration.loading import Declared
from dbplatform.ledger.ledger import Ledger
from dbplatform.live import keeping
from dbplatform.maintenance.cleanup import history, indexes, slots
from dbplatform.maintenance.cleanup.leftovers import (
    CleanupPlan,
    CleanupReport,
    Leftover,
    Part,
    apply_cleanup,
    plan_cleanup,
)
from dbplatform.maintenance.cleanup.policy import CleanupPolicy
from dbplatform.operations import backups, erasures
from dbplatform.operations.platform import Platform
from dbplatform.operations.unfinished import index_work
from dbplatform.postgres.clock import agreed_now, server_now
from dbplatform.postgres.connection import Target, connect

ARCHIVE, ATTEMPT, SCRATCH, RECOVERY = "archive", "backup attempt", "scratch database", "recovery folder"
_LIVE = "events of live tables"
_INTERRUPTED = "removals that were interrupted"


def plan(platform: Platform, declared: Declared, *, more: Sequence[Part] = ()) -> CleanupPlan:
    """What is left over; only reads, but every file of archives that say ``keep``."""
    return plan_cleanup(declared.name, [*_parts(platform, declared), *more])


def apply(
    platform: Platform,
    declared: Declared,
    planned: CleanupPlan,
    *,
    more: Sequence[Part] = (),
    run_id: str | None = None,
) -> CleanupReport:
    """Remove what was planned and is still left; recorded when there was something to remove. May be run again.

    Lock: SHARE UPDATE EXCLUSIVE on the table of an invalid index; the writer lock while one is dropped.
    """
    parts = [*_parts(platform, declared), *more]
    if not planned.due:
        return apply_cleanup(planned, parts)
    with platform.ledger.operation(declared.name, "cleanup", run_id=run_id) as summary:
        report = apply_cleanup(planned, parts)
        summary.update(report.as_json())
        return report


def _parts(platform: Platform, declared: Declared) -> Iterator[Part]:
    policy = declared.database.maintenance.cleanup
    # On an embedded server that is stopped nothing could be seen, and all of it would be left out in silence.
    ledger = platform.ledger
    if declared.url_from_environment() is None:
        platform.server.start()
    target = platform.existing_target(declared)
    if target is not None:
        yield from _of_the_server(platform, declared, target, policy)
    yield Part(
        kind=SCRATCH,
        find=lambda: [one for server in _servers(platform, declared) for one in _scratch(server)],
        remove=partial(_drop_scratch, platform, declared),
    )
    home = platform.home.recoveries
    yield Part(
        kind=RECOVERY,
        find=lambda: [_recovery(folder) for folder in cluster.find_killed(home)],
        remove=lambda one: cluster.remove_killed(Path(one.name)),
    )
    if declared.database.backups is not None and target is not None:
        yield Part(
            kind=ATTEMPT,
            find=lambda: _attempts(platform, declared),
            remove=partial(_clear_attempts, platform, declared, target),
        )
    if target is not None:
        yield Part(kind=ARCHIVE, find=lambda: _expired(platform, declared), remove=partial(_expire, platform, declared))
    kept = policy.history

    def old() -> list[Leftover]:
        return history.find_old(ledger, declared.name, kept, now=_agreed(ledger))

    def forget(one: Leftover) -> bool:
        return history.forget(ledger, declared.name, kept, one, now=_agreed(ledger))

    yield Part(kind=history.KIND, find=old, remove=forget)


def _agreed(ledger: Ledger) -> datetime:
    """Now, by the ledger's server. Raises ``ClocksApart``."""
    with connect(ledger.target, work="cleanup") as connection:
        return agreed_now(connection)


def _of_the_server(platform: Platform, declared: Declared, target: Target, policy: CleanupPolicy) -> Iterator[Part]:
    """What lies in the database itself, or is held for others by its server."""
    ledger, name = platform.ledger, declared.name

    def invalid() -> list[Leftover]:
        with connect(target, work="cleanup plan") as connection:
            return indexes.find_invalid(connection, needed=index_work(platform, declared, connection))

    def drop_index(one: Leftover) -> bool:
        with platform.writer(declared, "cleanup") as connection:
            return indexes.drop_invalid(connection, one, needed=index_work(platform, declared, connection))

    def stale() -> list[Leftover]:
        with connect(target, work="cleanup plan") as connection:
            return slots.find_stale_slots(connection, ledger, name, policy.slots, now=server_now(connection))

    def remember() -> None:
        with connect(target, work="cleanup") as connection:
            slots.remember_slots(connection, ledger, name, policy.slots, now=server_now(connection))

    def drop_slot(one: Leftover) -> bool:
        with connect(target, work="cleanup") as connection:
            return slots.drop_slot(connection, ledger, name, policy.slots, one, now=server_now(connection))

    def prepared() -> list[Leftover]:
        with connect(target, work="cleanup plan") as connection:
            return slots.find_prepared(connection, policy.prepared_transactions, now=server_now(connection))

    def files() -> list[Leftover]:
        with connect(target, work="cleanup plan") as connection:
            return slots.find_files(connection, now=server_now(connection))

    yield Part(kind=indexes.KIND, find=invalid, remove=drop_index)
    yield Part(kind=slots.SLOT, find=stale, remove=drop_slot, remember=remember)
    yield Part(kind=slots.PREPARED, find=prepared)
    yield Part(kind=slots.FILE, find=files)
    yield Part(kind=_LIVE, find=partial(_old_events, target), remove=partial(_forget_events, target))


def _old_events(target: Target) -> list[Leftover]:
    with connect(target, work="cleanup") as connection:
        count = keeping.count_old(connection)
    reason = f"{count} changes of live tables were noted more than {keeping.KEPT} ago"
    return [Leftover(kind=_LIVE, name="dbplatform.live_event", reason=reason)] if count else []


def _forget_events(target: Target, _: Leftover) -> bool:
    with connect(target, work="cleanup") as connection:
        return keeping.forget_old(connection) > 0


def _servers(platform: Platform, declared: Declared) -> list[Target]:
    """Where scratch databases of this one are made, as far as a server runs there."""
    servers = [platform.existing_target(declared)]
    url = declared.scratch_url_from_environment()
    if url is not None:
        servers.append(Target("the scratch server", url))
    elif platform.server.status().running:
        servers.append(Target("the embedded server", platform.server.url("postgres")))
    return [one for one in servers if one is not None]


def _scratch(server: Target) -> list[Leftover]:
    with connect(server, work="cleanup plan") as connection:
        left = scratch.left_behind(connection)
    return [
        Leftover(kind=SCRATCH, name=name, reason=f"its session is gone, on {server.name}", bytes=size)
        for name, size in left.items()
    ]


def _drop_scratch(platform: Platform, declared: Declared, one: Leftover) -> bool:
    """On each server that has it: two may be the same one."""
    dropped = False
    for server in _servers(platform, declared):
        with connect(server, work="cleanup") as connection:
            if one.name in scratch.left_behind(connection):
                scratch.drop(connection, one.name)
                dropped = True
    return dropped


def _recovery(folder: Path) -> Leftover:
    return Leftover(kind=RECOVERY, name=str(folder), reason="the process that recovered a server in it is gone")


def _attempts(platform: Platform, declared: Declared) -> list[Leftover]:
    found = attempts.find_leftovers(platform.ledger, declared.name)
    if not found:
        return []
    shown = ", ".join(backup.id for backup in found[:3]) + (" and more" if len(found) > 3 else "")
    reason = f"{len(found)} that were killed, failed, or not removed to their end: {shown}"
    return [Leftover(kind=ATTEMPT, name=declared.name, reason=reason)]


def _clear_attempts(platform: Platform, declared: Declared, target: Target, _: Leftover) -> bool:
    with connect(target, work="cleanup") as connection:
        attempts.clear_leftovers(connection, platform.ledger, declared.name, backups.destination_of(platform, declared))
    return True


def _expired(platform: Platform, declared: Declared) -> list[Leftover]:
    """Removals that were killed; files whose every row is older than ``keep``; one that cannot be read is told."""
    found = []
    begun = erasures.unfinished(platform, declared)
    if begun:
        # The ledger lists these archives no more: nothing below would find their files.
        rows = sum(one.rows for one in begun)
        reason = f"{len(begun)} decided since {begun[0].decided_at:%Y-%m-%d}; files with {rows:,} rows may be left"
        found.append(Leftover(kind=ARCHIVE, name=_INTERRUPTED, reason=reason))
    for policy in declared.database.archives:
        if policy.keep is None:
            continue
        report = erasures.plan_expiry(platform, declared, policy)
        if report.due:
            rows, files = sum(one.entry.rows for one in report.due), sum(1 + len(one.along) for one in report.due)
            reason = (
                f"{files} files with {rows:,} rows, each one from before {report.before:%Y-%m-%d} (keep {policy.keep})"
            )
            size = sum(one.entry.bytes for one in report.due)
            found.append(Leftover(kind=ARCHIVE, name=policy.name, reason=reason, bytes=size))
        advice = f"Bring a good copy back; dbplatform archive verify {declared.name} reads them all."
        found += [
            Leftover(kind=ARCHIVE, name=one.entry.location, reason=one.problem, fate="tell", advice=advice)
            for one in report.archives
            if one.problem is not None
        ]
    return found


def _expire(platform: Platform, declared: Declared, one: Leftover) -> bool:
    if one.name == _INTERRUPTED:
        return bool(erasures.finish(platform, declared))
    [policy] = erasures.policies_that_expire(declared, one.name)
    return bool(erasures.apply_expiry(platform, declared, policy).due)

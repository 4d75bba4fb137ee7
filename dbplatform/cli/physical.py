"""What the verbs ``backup`` and ``drill`` do with physical backups."""

from __future__ import annotations

from dbplatform.cli.common import bars, confirmed, note, say, show_json, show_table
from dbplatform.cli.verdict import say_checks
from dbplatform.declaration.loading import Declared
from dbplatform.operations import recovery
from dbplatform.operations.platform import Platform


def create(platform: Platform, declared: Declared, *, full: bool, dry_run: bool, as_json: bool) -> None:
    """``backup create --kind physical``."""
    server, parent = recovery.plan_take(platform, declared)
    parent = None if full else parent
    kind = f"an incremental base backup on {parent.id}" if parent else "a full base backup"
    if dry_run:
        show_json(
            {
                "database": declared.name,
                "kind": "physical",
                "server": server.place,
                "system_identifier": server.system,
                "databases": list(server.databases),
                "parent": parent.id if parent else None,
            }
        ) if as_json else say(f"would take {kind} of {server.place}, with {', '.join(server.databases)}")
        return
    if not as_json:
        note(f"taking {kind} of {server.place}, with {', '.join(server.databases)}")
    with bars():
        backup = recovery.take(platform, declared, full=full)
    if as_json:
        show_json({"database": declared.name, **backup.as_json()})
    else:
        say(f"backup {backup.id}: {backup.bytes or 0:,} bytes in {backup.location}")
        say(f"It counts when a recovery has proven it: dbplatform drill {declared.name} --kind physical")


def restore_point(platform: Platform, declared: Declared, name: str, *, dry_run: bool, as_json: bool) -> None:
    """``backup restore-point``."""
    if dry_run:
        document = {"database": declared.name, "restore_point": name}
        show_json(document) if as_json else say(f"would name this moment of the server of {declared.name} {name}")
        return
    point = recovery.name_point(platform, declared, name)
    if as_json:
        made_at = point.made_at.isoformat()
        show_json({"database": declared.name, "restore_point": name, "lsn": point.lsn, "made_at": made_at})
    else:
        say(f"restore point {name} at {point.lsn}")
        say(f"Back to it: dbplatform restore {declared.name} --restore-point {name} --into {declared.name}_restored")


def drill(platform: Platform, declared: Declared, *, dry_run: bool, as_json: bool) -> int:
    """``drill --kind physical``; its exit code."""
    if dry_run:
        newest = recovery.newest(platform, declared)
        show_json({"backup_id": newest.id, "kind": "physical"}) if as_json else say(
            f"would recover base backup {newest.id} aside, to a random moment and to the end of its WAL"
        )
        return 0
    if not as_json:
        note(f"recovering the server of {declared.name} aside")
    with bars():
        proof = recovery.prove(platform, declared)
    if as_json:
        show_json(proof.as_json())
        return 0 if proof.proven else 1
    say(f"backup {proof.backup_id}: {'PROVEN' if proof.proven else 'NOT PROVEN'}")
    say(f"  recovered {f'to {proof.moment} and ' if proof.moment else ''}to {proof.end}")
    if proof.rto_seconds is not None and proof.rpo_seconds is not None:
        words = f"what came after {proof.rpo_seconds:.0f} s ago would have been lost (RPO)"
        say(f"  recovery took {proof.rto_seconds:.1f} s (RTO); {words}")
    say(f"  {proof.witnesses} witnesses heard, {len(proof.tables)} quiet tables compared, pages and indexes read")
    say_checks(proof.checks)
    for problem in proof.errors:
        say(f"  {problem}")
    return 0 if proof.proven else 1


def prune(platform: Platform, declared: Declared, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """``backup prune --kind physical``; its exit code."""
    planned = recovery.plan_prune(platform, declared)
    if not as_json:
        if planned.refusal:
            say(f"Nothing is removed: {planned.refusal}")
        else:
            show_table(
                f"{len(planned.keep)} base backups stay, {len(planned.prune)} and {len(planned.wal)} WAL files go",
                ("backup", "why"),
                [(kept.backup.id, ", ".join(kept.reasons)) for kept in planned.keep]
                + [(backup.id, "REMOVED") for backup in planned.prune],
            )
    elif dry_run or planned.refusal:
        show_json(planned.as_json())
    if planned.refusal or dry_run:
        return 1 if planned.refusal else 0
    nothing = not planned.prune and not planned.wal
    confirmed(f"Remove {len(planned.prune)} base backups and {len(planned.wal)} WAL files?", yes=yes or nothing)
    report = recovery.apply_prune(platform, declared, planned)
    show_json(report.as_json()) if as_json else say(
        f"removed: {len(report.prune)} base backups, {len(report.wal)} WAL files"
    )
    return 0

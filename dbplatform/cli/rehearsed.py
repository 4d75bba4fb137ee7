"""Statements of migrations as people read them: what they lock and rewrite, how long they took in a rehearsal."""

from __future__ import annotations

from collections.abc import Sequence

from dbplatform.backups.files import size_words
from dbplatform.cli.common import note, say, show_table
from dbplatform.migrations.running import StatementRun
from dbplatform.migrations.trials.live import LiveTable
from dbplatform.operations.rehearsal import ObservedPlan, Rehearsal

_FEW = 2


def show_observed(observed: ObservedPlan) -> None:
    """The statements of a plan, with the tables that they lock as they are now."""
    if not observed.plan.pending:
        return
    runs = observed.trial.migrations if observed.trial is not None else ()
    rows = [
        (run.script, statement.line, _short(statement.sql), *_seen(statement))
        for run in runs
        for statement in run.statements
    ]
    if rows:
        show_table(
            "what each statement does, seen on an empty copy of the schema",
            ("script", "line", "statement", "lock", "on", "rewrites", "reads all of"),
            rows,
        )
    tables = _strongest(observed.tables)
    if tables:
        show_table(
            "the tables that it locks, as they are now",
            ("table", "lock", "rows", "size"),
            _by_tree(tables),
        )
    for table in tables:
        for blocker in table.blocked_by:
            say(f"in the way of {table.mode} on {table.relation}: {blocker}")
    if observed.not_observed is not None:
        note(f"Not all of it could be looked at: {observed.not_observed}")


def show_rehearsal(found: Rehearsal) -> None:
    """What a rehearsal measured, and its verdict."""
    real = found.basis == "backup"
    rows = [
        (
            run.script,
            statement.line,
            _short(statement.sql),
            *_seen(statement)[:3],
            *((statement.seconds, _log(statement)) if real else ()),
        )
        for run in found.trial.migrations
        for statement in run.statements
    ]
    if rows:
        measured = ("seconds", "log") if real else ()
        show_table(
            f"{found.database}: rehearsed on {_basis(found)}",
            ("script", "line", "statement", "lock", "on", "rewrites", *measured),
            rows,
        )
    if found.statements is None:
        note(f"No statement was planned before and after: {found.not_planned[0]}.")
    elif found.not_planned:
        note(f"{len(found.not_planned)} statements could not be planned before; the first: {found.not_planned[0]}")
    for change in found.plan_changes:
        query = _short(change.statement.query)
        if change.breaks:
            say(f"BROKEN: {query}: {change.after.error}")
        else:
            say(f"other plan, cost {change.before.cost:,.0f} becomes {change.after.cost:,.0f}: {query}")
            say(f"  before: {', '.join(change.before.nodes)}")
            say(f"  after:  {', '.join(change.after.nodes)}")
    if found.error is not None:
        say(f"FAILED: {found.error}")
        for script in found.trial.not_run[1:]:
            say(f"  not run: {script}")
    else:
        broken = sum(change.breaks for change in found.plan_changes)
        words = f"{broken} statements would break" if broken else "all of it ran"
        say(f"{found.database}: {words}; {found.seconds:.1f} s with the {'restore' if real else 'copy'}")


def _basis(found: Rehearsal) -> str:
    if found.backup is None:
        return "an empty copy of the schema, for there is no backup: it tells locks and rewrites, no times"
    taken = f"{found.backup.taken_at:%Y-%m-%d %H:%M} UTC" if found.backup.taken_at is not None else "an unknown time"
    return f"backup {found.backup.id} of {taken}"


def _seen(statement: StatementRun) -> tuple[str, str, str, str]:
    effect = statement.effect
    if effect is None:
        return "not seen", "", "", ""
    strongest = effect.strongest
    held = any(lock.held for lock in effect.locks)
    on = [lock.relation for lock in effect.locks if lock.mode == strongest]
    return f"{strongest or 'none'}{' (held)' if held else ''}", _few(on), _few(effect.rewritten), _few(effect.scanned)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_FEW])
    return shown if len(names) <= _FEW else f"{shown} and {len(names) - _FEW} more"


def _by_tree(tables: Sequence[LiveTable]) -> list[tuple[str, str, int | None, str]]:
    """A row for each table; the partitions of a tree and their root are one, with what all of them hold."""
    trees: dict[str, list[LiveTable]] = {}
    for table in tables:
        trees.setdefault(table.partition_of or table.relation, []).append(table)
    rows = []
    for root, members in trees.items():
        leaves = [table for table in members if table.partition_of] or members
        counts = [table.rows for table in leaves if table.rows is not None]
        name = root if leaves == members else f"{root}, {len(leaves)} partitions"
        mode = max(members, key=lambda table: table.rank).mode
        rows.append((name, mode, sum(counts) if counts else None, size_words(sum(t.bytes for t in members))))
    return rows


def _strongest(tables: Sequence[Sequence[LiveTable]]) -> list[LiveTable]:
    """Each table once, with the strongest lock of all migrations."""
    found: dict[str, LiveTable] = {}
    for table in (table for group in tables for table in group):
        before = found.get(table.relation)
        if before is None or table.rank > before.rank:
            found[table.relation] = table
    return list(found.values())


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _log(statement: StatementRun) -> str:
    written = statement.effect.wal_bytes if statement.effect is not None else None
    return "" if written is None else size_words(written)

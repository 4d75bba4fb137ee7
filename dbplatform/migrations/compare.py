"""The files of a folder compared with the history of a database. Nothing here writes, or looks into the files' SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dbplatform.errors import NotBuiltYet
from dbplatform.migrations.errors import HistoryMismatch, TargetUnknown
from dbplatform.migrations.files import Migration, Version, checksum, discover
from dbplatform.migrations.history import HistoryRow, as_stored, history
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.connection import AnyConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is applied, and what is not."""

    current: Version | None
    target: Version | None
    pending: tuple[tuple[Migration, int], ...]
    """Each file with its checksum, in the order in which they are to run."""
    skipped: tuple[Migration, ...]
    applied: tuple[HistoryRow, ...]
    superseded: tuple[HistoryRow, ...]
    placeholders: Placeholders


def compare(connection: AnyConnection, directory: Path, policy: MigrationPolicy, *, target: str | None) -> Comparison:
    """Read the files and, in one query, the history. Raises as ``plan.plan_migrations`` says."""
    migrations = discover(directory)
    rows = history(connection, policy)
    placeholders = Placeholders(connection, policy.placeholders, policy.history_table)
    table = str(policy.history_table)
    _refuse_failed(rows, table)
    state = _State.of(rows)

    versioned = {m.version: m for m in migrations if m.kind == "versioned" and m.version is not None}
    repeatable = {m.description: m for m in migrations if m.kind == "repeatable"}
    _refuse_changed_or_missing(state, versioned, repeatable, directory, table)

    limit = _limit(target, versioned, state)
    waiting = [m for v, m in versioned.items() if v not in state.versions and not state.below_baseline(v)]
    _refuse_out_of_order(waiting, state)
    chosen = [m for m in waiting if limit is None or _version(m) <= limit]
    pending = [(m, checksum(m.text)) for m in chosen]
    for migration in repeatable.values():
        now = checksum(placeholders.replaced(migration))
        row = state.repeatables.get(as_stored(migration.description))
        if row is None or row.checksum != now:
            pending.append((migration, now))
    return Comparison(
        current=state.current,
        target=max(map(_version, chosen), default=state.current),
        pending=tuple(pending),
        skipped=tuple(m for m in waiting if m not in chosen),
        applied=tuple(sorted([*state.versions.values(), *state.repeatables.values()], key=lambda r: r.installed_rank)),
        superseded=tuple(state.superseded),
        placeholders=placeholders,
    )


@dataclass(slots=True)
class _State:
    """The history read from its first row to its last."""

    versions: dict[Version, HistoryRow] = field(default_factory=dict)
    repeatables: dict[str, HistoryRow] = field(default_factory=dict)
    superseded: list[HistoryRow] = field(default_factory=list)
    baseline: Version | None = None

    @classmethod
    def of(cls, rows: list[HistoryRow]) -> _State:
        state = cls()
        for row in rows:
            state._add(row)
        return state

    def _add(self, row: HistoryRow) -> None:
        """Types are those of Flyway's ``api/CoreMigrationType``; ones without a file of SQL cannot be compared."""
        if row.type == "SCHEMA":
            return
        if row.version is None:
            before = self.repeatables.pop(row.description, None)
            if before is not None:
                self.superseded.append(before)
            if row.type != "DELETE":
                self.repeatables[row.description] = row
            return
        version = Version.parse(row.version)
        if row.type == "DELETE" or row.type.startswith("UNDO"):
            self.versions.pop(version, None)
            return
        if row.type in ("BASELINE", "SQL_BASELINE"):
            self.baseline = version
        self.versions[version] = row

    @property
    def current(self) -> Version | None:
        return max(self.versions, default=None)

    def below_baseline(self, version: Version) -> bool:
        return self.baseline is not None and version <= self.baseline


def _version(migration: Migration) -> Version:
    assert migration.version is not None
    return migration.version


def _refuse_failed(rows: list[HistoryRow], table: str) -> None:
    failed = [row for row in rows if not row.success]
    if failed:
        row = failed[0]
        raise HistoryMismatch(
            f"{row.script} failed at {row.installed_on:%Y-%m-%d %H:%M:%S} (row {row.installed_rank} of {table}).",
            hint="Take back by hand what it left behind, delete that row, and apply again.",
        )


def _refuse_changed_or_missing(
    state: _State,
    versioned: dict[Version, Migration],
    repeatable: dict[str, Migration],
    directory: Path,
    table: str,
) -> None:
    for version, row in state.versions.items():
        # Flyway's Java and script migrations, and baselines, have no file of SQL to compare.
        if row.type != "SQL" or (state.below_baseline(version) and version not in versioned):
            continue
        migration = versioned.get(version)
        if migration is None:
            raise _missing(row, directory, table)
        resolved = checksum(migration.text)
        if row.checksum is not None and row.checksum != resolved:
            raise HistoryMismatch(
                f"{migration.script} has changed since it was applied: its checksum was {row.checksum} and is "
                f"{resolved}.",
                hint="Put the file back as it was, and write the change into a new version.",
                file=migration.path,
            )
        if row.description != as_stored(migration.description):
            raise HistoryMismatch(
                f"{migration.script} was applied as {row.script}: the words of its name have changed.",
                hint=f"Name it {row.script} again.",
                file=migration.path,
            )
    stored = {as_stored(description) for description in repeatable}
    for description, row in state.repeatables.items():
        if row.type == "SQL" and description not in stored:
            raise _missing(row, directory, table)


def _missing(row: HistoryRow, directory: Path, table: str) -> HistoryMismatch:
    return HistoryMismatch(
        f"{row.script} was applied (row {row.installed_rank} of {table}), but there is no such file.",
        hint="Put the file back: it says how the schema came to be. If it has been renamed, name it as before.",
        file=directory / row.script,
    )


def _refuse_out_of_order(waiting: list[Migration], state: _State) -> None:
    current = state.current
    for migration in waiting:
        if current is not None and _version(migration) < current:
            raise HistoryMismatch(
                f"{migration.script} is pending, but version {current} is applied already.",
                hint=f"Give it a version above {current}: what was applied later may not fit what comes before it.",
                file=migration.path,
            )


def _limit(target: str | None, versioned: dict[Version, Migration], state: _State) -> Version | None:
    if target is None or target.lower() == "latest":
        return None
    try:
        limit = Version.parse(target)
    except ValueError as error:
        raise TargetUnknown(f"The target {error}.", hint="Or leave it out: then all are applied.") from error
    if limit not in versioned and limit not in state.versions:
        known = ", ".join(map(str, sorted(versioned))) or "none"
        raise TargetUnknown(f"There is no migration of version {target}.", hint=f"Versions: {known}.")
    if state.current is not None and limit < state.current:
        raise NotBuiltYet(
            what=f"Going back from version {state.current} to {limit} (undo)", hint="Write a new version instead."
        )
    return limit

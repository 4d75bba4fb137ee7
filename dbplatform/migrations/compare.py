"""The files of the folders compared with the history of a database. Nothing here writes, or looks into the files' SQL.

The rules are Flyway's ``internal/info/MigrationInfoImpl.validate`` and ``MigrationInfoServiceImpl`` with their default
settings (github.com/flyway/flyway); ``undo`` and baseline files are those of its documentation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dbplatform.migrations.errors import HistoryMismatch, TargetUnknown
from dbplatform.migrations.files import Folders, Migration, Version, checksum, discover
from dbplatform.migrations.foreign import foreign_histories
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
    future: tuple[HistoryRow, ...]
    """Versions that were applied from files newer than any that are here."""
    placeholders: Placeholders


@dataclass(frozen=True, slots=True)
class Files:
    """The migrations of the folders, by what makes each one itself."""

    versioned: dict[Version, Migration]
    undo: dict[Version, Migration]
    baseline: dict[Version, Migration]
    repeatable: dict[str, Migration]
    """By description, as the history holds it."""

    folders: Folders
    callbacks: tuple[Migration, ...] = ()
    """In the order in which those of one event run."""

    @classmethod
    def of(cls, folders: Folders | Files) -> Files:
        """Read the folders, unless that is done already; raises as ``files.discover`` does."""
        if isinstance(folders, Files):
            return folders
        by_kind: dict[str, dict[Version, Migration]] = {"versioned": {}, "undo": {}, "baseline": {}}
        repeatable: dict[str, Migration] = {}
        callbacks = []
        for migration in discover(folders):
            if migration.kind == "callback":
                callbacks.append(migration)
            elif migration.version is None:
                repeatable[as_stored(migration.description)] = migration
            else:
                by_kind[migration.kind][migration.version] = migration
        return cls(by_kind["versioned"], by_kind["undo"], by_kind["baseline"], repeatable, folders, tuple(callbacks))

    def callbacks_of(self, verb: Literal["Migrate", "Undo"]) -> tuple[Migration, ...]:
        """The callbacks of ``migrate``, or those of ``undo``."""
        return tuple(callback for callback in self.callbacks if ("Undo" in str(callback.event)) == (verb == "Undo"))

    @property
    def newest(self) -> Version | None:
        """The newest version that is here, Flyway's ``lastResolved``."""
        return max([*self.versioned, *self.baseline], default=None)

    @property
    def digest(self) -> str:
        """SHA-256 of what the files say and how they are to run, in their order: equal files, equal digest."""
        seen = hashlib.sha256()
        groups = (self.versioned, self.undo, self.baseline, self.repeatable)
        for group in (*(group.values() for group in groups), self.callbacks):
            for migration in group:
                words = (
                    migration.kind,
                    migration.script,
                    migration.text,
                    migration.execute_in_transaction,
                    migration.placeholder_replacement,
                )
                seen.update(repr(words).encode())
        return seen.hexdigest()


@dataclass(slots=True)
class InForce:
    """The history read from its first row to its last: what of it still holds."""

    versions: dict[Version, HistoryRow] = field(default_factory=dict)
    repeatables: dict[str, HistoryRow] = field(default_factory=dict)
    superseded: list[HistoryRow] = field(default_factory=list)
    baseline: Version | None = None
    begun: bool = False
    """Whether any version was ever recorded, even if it was undone since."""

    @classmethod
    def of(cls, rows: list[HistoryRow]) -> InForce:
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
        self.begun = True
        version = Version.parse(row.version)
        if row.type == "DELETE" or row.type.startswith("UNDO"):
            self.versions.pop(version, None)
            return
        if row.type in ("BASELINE", "SQL_BASELINE"):
            self.baseline = version if self.baseline is None else max(version, self.baseline)
        self.versions[version] = row

    @property
    def current(self) -> Version | None:
        return max(self.versions, default=None)

    def below_baseline(self, version: Version) -> bool:
        return self.baseline is not None and version <= self.baseline


def compare(
    connection: AnyConnection, files: Files, policy: MigrationPolicy, *, target: str | None, repeatables: bool = True
) -> Comparison:
    """Read the history, in one query. Raises as ``plan.plan_migrations`` says."""
    rows = history(connection, policy)
    placeholders = Placeholders(connection, policy.placeholders, policy.history_table)
    refuse_failed(rows, str(policy.history_table))
    if not rows:
        _refuse_foreign(connection)
    state = InForce.of(rows)
    _refuse_changed(state, files)
    gone = missing(state, files)
    if gone:
        raise _missing(gone[0], files.folders, str(policy.history_table))

    limit = _limit(target, files, state)
    waiting = _waiting(files, state, limit)
    if not policy.out_of_order:
        _refuse_out_of_order(waiting, state)
    chosen = [m for m in waiting if limit is None or version_of(m) <= limit]
    pending = [(m, m.checksum) for m in chosen]
    if repeatables:
        pending += _outdated(files, state, placeholders)
    return Comparison(
        current=state.current,
        target=max([version_of(m) for m in chosen] + list(state.versions), default=None),
        pending=tuple(pending),
        skipped=tuple(m for m in waiting if limit is not None and version_of(m) > limit),
        applied=tuple(sorted([*state.versions.values(), *state.repeatables.values()], key=lambda r: r.installed_rank)),
        superseded=tuple(state.superseded),
        future=tuple(future(state, files)),
        placeholders=placeholders,
    )


def version_of(migration: Migration) -> Version:
    """The version of a file that has one."""
    assert migration.version is not None
    return migration.version


def missing(state: InForce, files: Files) -> list[HistoryRow]:
    """Rows in force whose file is gone, though it should be here: a newer version, or none at all, is."""
    newest = files.newest
    return [
        row
        for version, row in state.versions.items()
        if row.type in ("SQL", "SQL_BASELINE")
        and not state.below_baseline(version)
        and version not in files.versioned
        and (newest is None or version < newest)
    ] + [row for words, row in state.repeatables.items() if row.type == "SQL" and words not in files.repeatable]


def future(state: InForce, files: Files) -> list[HistoryRow]:
    """Rows of versions above any file, as Flyway's state ``Future``: somebody else has newer files."""
    newest = files.newest
    return [
        row
        for version, row in state.versions.items()
        if newest is not None and version > newest and not state.below_baseline(version)
    ]


def refuse_failed(rows: list[HistoryRow], table: str) -> None:
    """Raise ``HistoryMismatch`` for a row that says that a migration failed: only Flyway leaves such rows."""
    failed = [row for row in rows if not row.success]
    if failed:
        row = failed[0]
        raise HistoryMismatch(
            f"{row.script} failed at {row.installed_on:%Y-%m-%d %H:%M:%S} (row {row.installed_rank} of {table}).",
            hint="Take back by hand what it left behind, remove that row by `dbplatform migrate repair`, apply again.",
        )


def _refuse_foreign(connection: AnyConnection) -> None:
    """A database that another tool has migrated must not be migrated from its first version again."""
    others = foreign_histories(connection)
    if others:
        raise HistoryMismatch(
            f"This database was migrated by {' and '.join(map(str, others))}, and has no history of these files.",
            hint="Say from where on they count: dbplatform migrate baseline DATABASE --version V",
        )


def _waiting(files: Files, state: InForce, limit: Version | None) -> list[Migration]:
    """Versions that are not applied, in their order; a fresh database begins with the newest baseline file."""
    begins = [v for v in files.baseline if limit is None or v <= limit] if not state.begun else []
    start = max(begins, default=None)
    if start is not None:
        return [files.baseline[start], *(m for v, m in files.versioned.items() if v > start)]
    return [m for v, m in files.versioned.items() if v not in state.versions and not state.below_baseline(v)]


def _outdated(files: Files, state: InForce, placeholders: Placeholders) -> list[tuple[Migration, int]]:
    """Repeatables that never ran, or whose text after the placeholders is another one now."""
    found = []
    for words, migration in files.repeatable.items():
        now = checksum(placeholders.replaced(migration))
        row = state.repeatables.get(words)
        if row is None or row.checksum != now:
            found.append((migration, now))
    return found


def _refuse_changed(state: InForce, files: Files) -> None:
    for version, row in state.versions.items():
        migration = files.versioned.get(version)
        # Flyway's Java and script migrations, and what a baseline covers, have no file of SQL to compare.
        if row.type != "SQL" or migration is None or state.below_baseline(version):
            continue
        resolved = migration.checksum
        if row.checksum is not None and row.checksum != resolved:
            raise HistoryMismatch(
                f"{migration.script} has changed since it was applied: its checksum was {row.checksum} and is "
                f"{resolved}.",
                hint="Put the file back as it was, and write the change into a new version. If nothing but its text "
                f"changed: dbplatform migrate repair DATABASE --checksum {migration.script}",
                file=migration.path,
            )
        if row.description != as_stored(migration.description):
            raise HistoryMismatch(
                f"{migration.script} was applied as {row.script}: the words of its name have changed.",
                hint=f"Name it {row.script} again.",
                file=migration.path,
            )


def _missing(row: HistoryRow, folders: Folders, table: str) -> HistoryMismatch:
    folder = folders if isinstance(folders, Path) else folders[0]
    return HistoryMismatch(
        f"{row.script} was applied (row {row.installed_rank} of {table}), but there is no such file.",
        hint="Put the file back: it says how the schema came to be. If it has been renamed, name it as before. If it "
        "was removed on purpose, `dbplatform migrate repair` marks it as deleted.",
        file=folder / row.script,
    )


def _refuse_out_of_order(waiting: list[Migration], state: InForce) -> None:
    current = state.current
    for migration in waiting:
        if current is not None and version_of(migration) < current:
            raise HistoryMismatch(
                f"{migration.script} is pending, but version {current} is applied already.",
                hint=f"Give it a version above {current}: what was applied later may not fit what comes before it. Or "
                "declare migrations.out_of_order: true.",
                file=migration.path,
            )


def _limit(target: str | None, files: Files, state: InForce) -> Version | None:
    if target is None or target.lower() == "latest":
        return None
    limit = known_version(target, files, state)
    if state.current is not None and limit < state.current:
        raise TargetUnknown(
            f"The target {limit} lies before version {state.current}, which is applied.",
            hint="To go back: dbplatform migrate undo.",
        )
    return limit


def known_version(target: str, files: Files, state: InForce) -> Version:
    """The version that ``target`` names; raises ``TargetUnknown`` unless there is a file or a row of it."""
    try:
        version = Version.parse(target)
    except ValueError as error:
        raise TargetUnknown(f"The target {error}.", hint="Or leave it out.") from error
    if version not in files.versioned and version not in files.baseline and version not in state.versions:
        known = ", ".join(map(str, sorted([*files.versioned, *files.baseline]))) or "none"
        raise TargetUnknown(f"There is no migration of version {target}.", hint=f"Versions: {known}.")
    return version

"""Up, down, up again, in a database made for it: does every undo file give back what was there before?

Each version that has an undo file is undone and applied again right after it was applied, so that a fault names its
file. Then all versions go down as far as undo files reach, and up again. What is compared is the schema
(``drift.objects``), not the rows. A missing undo file is reported; it is no fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dbplatform import progress
from dbplatform.migrations.apply import apply_migrations
from dbplatform.migrations.callbacks import BEGINNING, run_events
from dbplatform.migrations.compare import Files, compare, version_of
from dbplatform.migrations.drift.differences import Difference, differences
from dbplatform.migrations.drift.objects import Objects, schema_objects
from dbplatform.migrations.errors import MigrationFailed
from dbplatform.migrations.files import Folders, Migration, Version
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.undo import apply_undo
from dbplatform.postgres.connection import AutocommitConnection

Status = Literal["equal", "different", "undo failed", "redo failed", "no undo file", "baseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedVersion:
    """One version, taken back and applied again."""

    version: Version
    script: str
    status: Status
    after_undo: tuple[Difference, ...] = ()
    """What is not as it was before the version."""
    after_redo: tuple[Difference, ...] = ()
    """What is not as it was after the version was applied first."""
    error: str | None = None
    """Why the undo file, or the version behind it, could not run."""

    def as_json(self) -> dict[str, Any]:
        return {
            "version": str(self.version),
            "script": self.script,
            "status": self.status,
            "after_undo": [difference.as_json() for difference in self.after_undo],
            "after_redo": [difference.as_json() for difference in self.after_redo],
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """What the whole way showed."""

    database: str
    versions: tuple[TestedVersion, ...]
    undone_to: Version | None
    """How far down all versions went together; None: to the empty database, or not at all behind a failed redo."""
    whole_way: tuple[Difference, ...]
    """What is not as it was, after all went down and up again."""

    @property
    def passed(self) -> bool:
        """Whether every undo file that there is gave back what was there before."""
        return not self.whole_way and all(v.status in ("equal", "no undo file", "baseline") for v in self.versions)

    @property
    def without_undo(self) -> tuple[str, ...]:
        return tuple(version.script for version in self.versions if version.status == "no undo file")

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate test --json``."""
        return {
            "database": self.database,
            "passed": self.passed,
            "versions": [version.as_json() for version in self.versions],
            "without_undo": list(self.without_undo),
            "undone_to": str(self.undone_to) if self.undone_to else None,
            "differences": [difference.as_json() for difference in self.whole_way],
        }


def round_trip(
    connection: AutocommitConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    database: str,
    server_wide: bool,
) -> RoundTrip:
    """Go the whole way in the connected database, which must be empty and is used up by it.

    Repeatable migrations run once, at the end: an undo file is not asked to work around what they made. Callbacks run
    as around one long run: ``beforeMigrate`` at its beginning, those of each file with it, what comes after a run at
    the end. Where a version cannot be applied behind its undo file, the way ends there. Unless ``server_wide``, it ends
    with ``ServerWide`` at a file that changes more than the database. Reports ``test <database>`` in versions. Raises
    what ``apply_migrations`` raises for a version that cannot be applied at all.
    """
    trip = _Trip(connection, Files.of(folders), policy, server_wide)
    found = compare(connection, trip.files, policy, target=None, repeatables=False)
    order = [migration for migration, _ in found.pending]
    run_events(connection, trip.files, policy, BEGINNING, server_wide=server_wide)
    tested: list[TestedVersion] = []
    task = f"test {database}"
    for done, migration in enumerate(order):
        progress.report(task, done=done, total=len(order), unit="versions")
        tested.append(trip.there_and_back(migration))
        if tested[-1].status == "redo failed":
            return RoundTrip(database=database, versions=tuple(tested), undone_to=None, whole_way=())
    progress.report(task, done=len(order), total=len(order), unit="versions")
    top = trip.objects()
    undone_to = trip.down(tested)
    whole_way = differences(top, trip.up(tested[-1].version)) if tested else ()
    apply_migrations(connection, trip.files, policy, database=database, server_wide=server_wide)
    return RoundTrip(database=database, versions=tuple(tested), undone_to=undone_to, whole_way=whole_way)


@dataclass(frozen=True, slots=True)
class _Trip:
    connection: AutocommitConnection
    files: Files
    policy: MigrationPolicy
    server_wide: bool

    def there_and_back(self, migration: Migration) -> TestedVersion:
        """Apply the next version; where it has an undo file, undo it and apply it again."""
        version, script = version_of(migration), migration.script
        before = self.objects()
        after = self.up(version)
        if migration.kind == "baseline" or version not in self.files.undo:
            status: Status = "baseline" if migration.kind == "baseline" else "no undo file"
            return TestedVersion(version=version, script=script, status=status)
        try:
            self.undo()
        except MigrationFailed as error:
            return TestedVersion(version=version, script=script, status="undo failed", error=str(error))
        gone = differences(before, self.objects())
        try:
            again = differences(after, self.up(version))
        except MigrationFailed as error:
            return TestedVersion(
                version=version, script=script, status="redo failed", after_undo=gone, error=str(error)
            )
        status = "different" if gone or again else "equal"
        return TestedVersion(version=version, script=script, status=status, after_undo=gone, after_redo=again)

    def undo(self) -> None:
        apply_undo(self.connection, self.files, self.policy, server_wide=self.server_wide)

    def up(self, version: Version) -> Objects:
        apply_migrations(
            self.connection,
            self.files,
            self.policy,
            target=str(version),
            repeatables=False,
            server_wide=self.server_wide,
            whole=False,
        )
        return self.objects()

    def down(self, tested: Sequence[TestedVersion]) -> Version | None:
        """Undo the newest versions until one cannot be; the version that stays."""
        for version in reversed(tested):
            if version.status != "equal":
                return version.version
            self.undo()
        return None

    def objects(self) -> Objects:
        return schema_objects(self.connection, history_table=self.policy.history_table)

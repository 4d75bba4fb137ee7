"""What may be declared about migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import DurationWords, Interval, Policy, RelationName

FolderName = Annotated[str, Field(min_length=1)]


class AcceptedFinding(Policy):
    """A finding that is meant, in files that are applied already: a comment in them would change their checksum."""

    rules: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, description="The rules, as lint names them.")
    script: str = Field(
        min_length=1,
        description="The file as the history names it, such as V3__index.sql; * and ? stand for any characters.",
    )
    reason: str = Field(min_length=1, description="Why it is meant.")


class LintPolicy(Policy):
    """What `migrate lint` looks for, and what is accepted."""

    pedantic: bool = Field(
        default=False,
        description="Whether matters of taste are found, too: types of columns, domains, the order of enums.",
    )
    accept: list[AcceptedFinding] = Field(default_factory=list, description="Findings that are meant.")


class MigrationPolicy(Policy):
    """How the schema of one database is migrated."""

    directory: FolderName | Annotated[list[FolderName], Field(min_length=1)] = Field(
        default="migrations",
        description="The folder of the SQL files, or several, relative to the declaration: V<version>__<words>.sql run "
        "once in the order of their versions, R__<words>.sql after them whenever their text changed, "
        "U<version>__<words>.sql undo, B<version>__<words>.sql stands for all versions up to its own in an empty "
        "database. Subfolders are searched too.",
    )
    history_table: RelationName = Field(
        default=Relation("public", "flyway_schema_history"),
        validate_default=True,
        description="Where the applied migrations are recorded, in Flyway's layout and with Flyway's checksums, so "
        "that either tool can take over. Its schema is created when it is missing.",
    )
    placeholders: dict[str, str] = Field(
        default_factory=dict,
        description="Values for ${name} in the files; upper and lower case do not matter. A name without a value is "
        "an error. ${flyway:defaultSchema}, user, database, timestamp, filename and table are always known.",
    )
    lock_timeout: DurationWords = Field(
        default=Interval(microseconds=2_000_000),
        validate_default=True,
        description="How long a statement of a migration may wait for a lock. After that the whole transaction is "
        "rolled back and tried again after a pause, ten times in all, so that a waiting migration does not stop the "
        "traffic behind it. Concurrent statements (CREATE INDEX CONCURRENTLY) wait without limit: they block nobody.",
    )
    allow_destructive: bool = Field(
        default=False,
        description="Whether DROP TABLE, COLUMN, SCHEMA, DATABASE, OWNED or SEQUENCE, any other DROP ... CASCADE, "
        "TRUNCATE, and an ALTER COLUMN TYPE that rewrites its table may run without being named. Otherwise a file that "
        "needs one says so in a comment: -- dbplatform:allow drop table",
    )
    out_of_order: bool = Field(
        default=False,
        description="Whether a version below the newest applied one may still be applied. Otherwise it is refused.",
    )
    block_on_drift: bool = Field(
        default=False,
        description="Whether pending migrations are refused while the schema is not what the applied ones make of an "
        "empty database (`dbplatform migrate drift`). With nothing pending nothing is compared.",
    )
    require_rehearsal: bool = Field(
        default=False,
        description="Whether pending migrations must have run in a rehearsal before they run here: "
        "`dbplatform migrate rehearse`, on the newest backup where backups are declared. What creates the schema in an "
        "empty database needs none.",
    )
    rehearsal_max_age: DurationWords = Field(
        default=Interval(days=7),
        validate_default=True,
        description="How old a rehearsal may be to count for require_rehearsal.",
    )
    lint: LintPolicy = Field(default_factory=LintPolicy)

    def folders(self, base: Path) -> tuple[Path, ...]:
        """The folders of the files, seen from the folder of the declaration."""
        names = [self.directory] if isinstance(self.directory, str) else self.directory
        return tuple(base / name for name in names)

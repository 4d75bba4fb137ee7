"""What a person declares about one archive."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from dbplatform.postgres.daily_window import WindowWords
from dbplatform.postgres.words import ColumnName, IntervalWords, Policy, RelationName, SizeWords
from dbplatform.storage.place import S3_SCHEME

#: Intervals with months are compared by where they lead from here.
_SOME_DAY = datetime(4000, 1, 1, tzinfo=UTC)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")


class TableDestination(Policy):
    """A table that takes what leaves another one."""

    table: RelationName = Field(description="The table: schema.table; it is made where it is missing.")
    url_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The variable that holds the URL of its database; left out: the same database.",
    )


def _destination(value: Any) -> Any:
    """A bucket, or a folder, which has a slash or begins with a dot or tilde; a bare name is a table."""
    if not isinstance(value, str):
        return value
    scheme = _SCHEME.match(value)
    if scheme:
        if not value.startswith(S3_SCHEME):
            raise ValueError(f"archiving to {scheme[1]}:// is not built yet; write s3://bucket/prefix or a folder")
        if not _BUCKET.match(value):
            raise ValueError(f"{value!r} names no bucket; write s3://bucket/prefix")
        return value
    if "/" not in value and not value.startswith((".", "~")):
        return {"table": value}
    return value


class ArchivePolicy(Policy):
    """Rows of one table that leave it once they are old enough or fulfil a condition, kept as Parquet files."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,47}$",
        description="The name of the archive: lower case letters, digits and underscores.",
    )
    table: RelationName = Field(description="The table whose rows are archived: schema.table.")
    column: ColumnName | None = Field(
        default=None, description="The column that tells a row's age: timestamptz, timestamp or date."
    )
    older_than: IntervalWords | None = Field(
        default=None, description="How old a row must be, back from now in UTC: 6 months."
    )
    where: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = Field(
        default=None, description="A condition in SQL on the row, beside its age or instead of it: status = 'done'."
    )
    by: Literal["rows", "partition"] = Field(
        default="rows",
        description="rows: those that are old enough or fulfil the condition are deleted, one batch after the other. "
        "partition: each partition that retain of partitioned_tables no longer keeps is written whole, and retirement "
        "detaches and drops it; column, older_than and where are left out.",
    )
    to: Annotated[TableDestination | str | None, BeforeValidator(_destination)] = Field(
        default=None,
        description="Where the rows go: a folder or s3://bucket/prefix, as files; or a table, schema.table, in another "
        "database {table: schema.table, url_env: VARIABLE}. Left out: the folder archives below DBPLATFORM_HOME.",
    )
    children: Literal["archive", "refuse"] = Field(
        default="refuse",
        description="Rows of other tables that refer to these by a foreign key: refuse names them before anything "
        "changes; archive lets them leave along, each table's rows in a file of their own, and theirs in turn.",
    )
    keep: IntervalWords | None = Field(
        default=None,
        description="How old rows become in the archive, back from now in UTC: 7 years. A file whose every row is "
        "older is removed every night, with what else is left over (maintenance/cleanup), or by dbplatform archive "
        "expire; its rows are erased again after every restore. Left out: for ever.",
    )
    max_replica_lag_mb: int = Field(
        default=50, ge=1, description="No batch is deleted while a replica has more MB of WAL than this to replay."
    )
    max_wal_mb_per_s: int | None = Field(
        default=None,
        ge=1,
        description="The next batch waits until the server writes no more WAL than this, all of its sessions together.",
    )
    window: WindowWords | None = Field(
        default=None,
        description="Rows leave within these hours of the day alone, with a time zone unless in UTC: 22:00-05:00 "
        "Europe/Vienna. When it closes, the run ends behind the batch, and the next one goes on.",
    )
    budget: SizeWords | None = Field(
        default=None,
        description="Rows of so many bytes leave the table in one run, and the rest in the next ones: 5 GB (as text, "
        "to the end of a batch; rows along are not counted).",
    )

    @model_validator(mode="after")
    def _says_which_rows(self) -> ArchivePolicy:
        if self.by == "partition":
            if (self.column, self.older_than, self.where) != (None, None, None):
                raise ValueError(
                    "by: partition takes what retain of partitioned_tables does not keep; leave out column, older_than "
                    "and where"
                )
            if self.children == "archive":
                raise ValueError("a partition that rows refer to cannot be detached; leave out children, or by")
            if self.keep is not None:
                raise ValueError("keep is not built yet where whole partitions are archived; leave out keep, or by")
            if (self.window, self.budget, self.max_wal_mb_per_s) != (None, None, None):
                raise ValueError("no rows are deleted by partition; leave out window, budget and max_wal_mb_per_s")
            return self
        if (self.column is None) != (self.older_than is None):
            raise ValueError("column and older_than belong together: write both, or a where alone")
        if self.older_than is None and self.where is None:
            raise ValueError("nothing says which rows: write column and older_than, or where, or all three")
        if self.keep is not None:
            if self.older_than is None:
                raise ValueError("keep judges rows by their age: write column and older_than beside it")
            if _SOME_DAY - self.keep.relativedelta >= _SOME_DAY - self.older_than.relativedelta:
                raise ValueError(
                    f"rows are archived at {self.older_than} and kept until {self.keep}: keep must be longer"
                )
        return self

    @property
    def rule(self) -> str:
        """Which rows leave, in words."""
        if self.by == "partition":
            return "retain does not keep their partition"
        age = f"{self.column} is older than {self.older_than}" if self.older_than is not None else None
        return " and ".join(words for words in (age, self.where) if words is not None)

    def destination(self, *, base: Path, default: Path) -> str | TableDestination:
        """A table, ``s3://bucket/prefix``, or the absolute folder: a relative one is taken from ``base``."""
        if isinstance(self.to, TableDestination):
            return self.to
        if self.to is None:
            return str(default.absolute())
        return self.to if self.to.startswith(S3_SCHEME) else str((base / Path(self.to).expanduser()).absolute())

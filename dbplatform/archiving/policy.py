"""What a person declares about one archive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from dbplatform.postgres.words import ColumnName, IntervalWords, Policy, RelationName

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def _folder(value: str) -> str:
    """A folder has a slash or begins with a dot or tilde; a bare name would be a table."""
    scheme = _SCHEME.match(value)
    if scheme:
        raise ValueError(f"archiving to {scheme[1]}:// is not built yet; write a folder, such as ./archives")
    if "/" not in value and not value.startswith((".", "~")):
        raise ValueError("archiving to a table is not built yet; write a folder with a slash, such as ./archives")
    return value


class ArchivePolicy(Policy):
    """Rows of one table that leave it once they are old enough, kept as Parquet files."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,47}$",
        description="The name of the archive: lower case letters, digits and underscores.",
    )
    table: RelationName = Field(description="The table whose rows are archived: schema.table.")
    column: ColumnName = Field(description="The column that tells a row's age: timestamptz, timestamp or date.")
    older_than: IntervalWords = Field(description="How old a row must be, back from now in UTC: 6 months.")
    to: Annotated[str, AfterValidator(_folder)] | None = Field(
        default=None, description="The folder for the files; left out: archives below DBPLATFORM_HOME."
    )

    def folder(self, *, base: Path, default: Path) -> Path:
        """The declared folder, a relative one taken from ``base``; ``default`` where none is declared."""
        return default if self.to is None else (base / Path(self.to).expanduser()).absolute()

"""An archive by its location alone, wherever it is kept: a file of a folder or bucket, or rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dbplatform.archiving.errors import ArchiveDamaged
from dbplatform.archiving.parquet import ArchiveReader, damaged, sha256_of
from dbplatform.archiving.tables import TablePlace, TableReader, own_url, parsed, table_reader, url_of
from dbplatform.postgres.connection import AnyConnection, Target
from dbplatform.storage import place

Reader = ArchiveReader | TableReader
_TABLE = "table:"


@contextmanager
def reading(location: str, sha256: str, near: AnyConnection) -> Iterator[Reader]:
    """The archive at a location, once every byte of it was read and has the SHA-256 that was recorded.

    ``near`` is a session with the database that the rows came from. Raises ``ArchiveDamaged``, and ``StorageFailed``
    or ``CannotConnect`` where the storage does not answer.
    """
    with ExitStack() as stack:
        if location.startswith(_TABLE):
            held = stack.enter_context(table_reader(location, near))
            _require(location, held.digest()[1], sha256)
            yield held
            return
        try:
            file = stack.enter_context(place.opened(location))
            actual = sha256_of(file)
        except OSError as error:
            raise damaged(location, f"it cannot be read ({error.strerror or error})") from error
        _require(location, actual, sha256)
        file.seek(0)
        yield ArchiveReader(file, location)


def home_of(location: str, near: AnyConnection, *, work: Path) -> tuple[place.Place, str]:
    """The place that keeps an archive, and its name there; what does not go into a folder is written below ``work``."""
    if location.startswith(_TABLE):
        table, archive_id, variable = parsed(location)
        target = Target(variable, url_of(variable)) if variable else Target("the archive's table", own_url(near))
        return TablePlace(target=target, table=table, variable=variable, work=work), f"{archive_id}.parquet"
    folder, _, name = location.rpartition("/")
    return place.place_at(folder, work=work), name


def exists(location: str, near: AnyConnection) -> bool:
    """Whether there is an archive. Raises what ``reading`` raises where nobody can tell."""
    if not location.startswith(_TABLE):
        return place.exists(location)
    try:
        with table_reader(location, near):
            return True
    except ArchiveDamaged:
        return False


def _require(location: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise damaged(location, "its SHA-256 differs from the recorded one")

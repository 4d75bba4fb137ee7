"""Migration files: their names, versions, order, settings and checksums. Only the file system is read here.

Names, version order and checksums are Flyway's, read from its source (github.com/flyway/flyway, folder
flyway-core/src/main/java/org/flywaydb/core): ``internal/resource/ResourceNameParser``, ``api/MigrationVersion`` and
``internal/resolver/ChecksumCalculator``.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path
from typing import Literal

from dbplatform.errors import NotBuiltYet
from dbplatform.migrations.errors import MigrationFileError

PATTERN = "V<version>__<words>.sql, U<version>__<words>.sql, B<version>__<words>.sql or R__<words>.sql"

Kind = Literal["versioned", "undo", "baseline", "repeatable", "callback"]

#: One folder of migrations, or several that are read as one.
Folders = Path | Sequence[Path]

_NAME = re.compile(r"(?:(?P<prefix>[VUB])(?P<version>[0-9]+(?:[._][0-9]+)*)|(?P<repeatable>R))__(?P<words>.+)\.sql")
_KINDS: dict[str | None, Kind] = {"V": "versioned", "U": "undo", "B": "baseline", None: "repeatable"}
# Files of these names are SQL callbacks to Flyway (api/callback/Event): those of migrate and undo run here.
_CALLBACK = re.compile(
    r"(?P<event>(?:before|after)(?:Each)?(?:Migrate|Undo)|after(?:Each)?(?:Migrate|Undo)Error|afterMigrateApplied"
    r"|afterVersioned|beforeRepeatables)(?:__.*)?\.sql"
)
_OTHER_CALLBACK = re.compile(
    r"(?P<event>(?:before|after)(?:Each)?(?:Migrate|Undo|Clean|Info|Validate|Baseline|Repair|Connect|Versioned|Repeatables)"
    r"(?:Statement)?(?:Error|Applied|OperationFinish)?|createSchema|beforeCreateSchema)(?:__.*)?\.sql"
)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version as Flyway compares it: numbers from the left, missing ones are zero, so ``1.0 == 1``."""

    text: str
    numbers: tuple[int, ...]
    """Without zeros at the end."""

    @classmethod
    def parse(cls, text: str) -> Version:
        """``1``, ``1.2``, ``1_2`` or a time such as ``20260131120000``; raises ValueError with a sentence."""
        if not re.fullmatch(r"[0-9]+(?:[._][0-9]+)*", text):
            raise ValueError(f"{text!r} is not a version; write numbers with dots between them, such as 1 or 1.2")
        dotted = text.replace("_", ".")
        numbers = [int(part) for part in dotted.split(".")]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()
        return cls(dotted, tuple(numbers))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.numbers == other.numbers

    def __lt__(self, other: Version) -> bool:
        return self.numbers < other.numbers

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file: what its name, its text and its ``.conf`` say."""

    kind: Kind
    version: Version | None
    description: str
    script: str
    """The path below its folder of migrations, as the history records it."""
    path: Path
    text: str
    """The content, decoded, without a byte order mark."""
    execute_in_transaction: bool | None
    """As ``<file>.conf`` says; none: the statements decide."""
    placeholder_replacement: bool
    checksum: int
    """Of the text as it is; a repeatable's counts after its placeholders are replaced."""
    event: str | None = None
    """When a callback runs, as Flyway names it; its description is its whole name."""


def discover(folders: Folders) -> list[Migration]:
    """All migrations below the folders, in the order of their versions, then repeatables and callbacks by description.

    Raises ``MigrationFileError`` for a ``.sql`` file whose name fits no pattern, for two files of one version, and for
    text that is not UTF-8; ``NotBuiltYet`` for callbacks of verbs that do not exist here.
    """
    migrations: list[Migration] = []
    for folder in _outermost(folders):
        if not folder.is_dir():
            raise MigrationFileError(
                f"The folder of migrations {folder} does not exist.",
                hint="Create it, or correct `directory` in the declaration.",
                file=folder,
            )
        migrations += [_read(path, folder, has_conf) for path, has_conf in _sql_files(folder)]
    _refuse_duplicates(migrations)
    return sorted(migrations, key=_order)


def _outermost(folders: Folders) -> list[Path]:
    """The folders without those that lie in another one: a file has one path, as in Flyway's ``Locations``."""
    given = [folders] if isinstance(folders, Path) else list(dict.fromkeys(folders))
    return [folder for folder in given if not any(other in folder.parents for other in given)]


def checksum(text: str) -> int:
    """Flyway's checksum: the signed CRC32 of the UTF-8 lines without their ends.

    ``ChecksumCalculator.calculateChecksumForResource`` feeds ``BufferedReader.readLine()`` line by line; that ends
    a line at ``\\n``, ``\\r`` or ``\\r\\n`` and at nothing else (Java SE, java.io.BufferedReader). The one byte order
    mark that does not count (``BomFilter``) is left out where the file is read.
    """
    content = text.replace("\r", "").replace("\n", "")
    unsigned = zlib.crc32(content.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


def _order(migration: Migration) -> tuple[bool, tuple[int, ...], str]:
    numbers = migration.version.numbers if migration.version else ()
    return (migration.version is None, numbers, migration.description if migration.version is None else migration.kind)


def _sql_files(folder: Path) -> list[tuple[Path, bool]]:
    """Every ``.sql`` file below the folder, and whether it has a ``.conf`` beside it, without asking for each."""
    found = []
    for above, _, names in os.walk(folder):
        known = set(names)
        found += [(Path(above, name), f"{name}.conf" in known) for name in names if name.endswith(".sql")]
    return sorted(found)


def _read(path: Path, directory: Path, has_conf: bool) -> Migration:
    match, callback = _NAME.fullmatch(path.name), _CALLBACK.fullmatch(path.name)
    if match is None and callback is None:
        raise _misnamed(path)
    settings = _settings(path.with_name(path.name + ".conf")) if has_conf else {}
    text = _text(path)
    return Migration(
        kind=_KINDS[match["prefix"]] if match else "callback",
        version=Version.parse(match["version"]) if match and match["version"] else None,
        description=match["words"].replace("_", " ") if match else path.stem,
        script=path.relative_to(directory).as_posix(),
        path=path,
        text=text,
        execute_in_transaction=settings.get("executeInTransaction"),
        placeholder_replacement=settings.get("placeholderReplacement", True),
        checksum=checksum(text),
        event=callback["event"] if callback else None,
    )


def _misnamed(path: Path) -> Exception:
    other = _OTHER_CALLBACK.fullmatch(path.name)
    if other is not None:
        return NotBuiltYet(what=f"Flyway's callback {other['event']}", hint=f"Remove {path.name}.", file=path)
    return MigrationFileError(
        f"{path.name} is not the name of a migration: {PATTERN}.",
        hint="Rename it (two underscores before the words), or give it another ending than .sql.",
        file=path,
    )


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MigrationFileError(
            f"{path.name} is not UTF-8: its byte {error.start} ({content[error.start]:#04x}) is no character.",
            hint="Save it as UTF-8.",
            file=path,
            line=content.count(b"\n", 0, error.start) + 1,
        ) from error


def _settings(conf: Path) -> dict[str, bool]:
    """``<file>.conf``: the script settings of Flyway that are supported, each true or false."""
    settings: dict[str, bool] = {}
    for number, raw in enumerate(conf.read_text("utf-8-sig").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "!")):
            continue
        name, separator, value = (part.strip() for part in line.partition("="))
        if separator and name == "encoding" and value.upper() in ("UTF-8", "UTF8"):
            continue
        if name not in ("executeInTransaction", "placeholderReplacement"):
            raise NotBuiltYet(
                what=f"The setting {name!r} of a migration", hint="Remove the line.", file=conf, line=number
            )
        if value.lower() not in ("true", "false"):
            raise MigrationFileError(f"{name} is {value!r}.", hint="Write true or false.", file=conf, line=number)
        settings[name] = value.lower() == "true"
    return settings


def _refuse_duplicates(migrations: list[Migration]) -> None:
    seen: dict[tuple[Kind, Version | str], Migration] = {}
    for migration in migrations:
        first = seen.setdefault((migration.kind, migration.version or migration.description), migration)
        if first is not migration:
            what = f"version {migration.version}" if migration.version else f"description {migration.description!r}"
            raise MigrationFileError(
                f"{first.script} and {migration.script} have the same {what}.",
                hint="Give one of them a version of its own." if migration.version else "Rename one of them.",
                file=migration.path,
            )

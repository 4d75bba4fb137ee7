"""What a table of a seed is filled from: a file of CSV, of JSON lines or of SQL, or a generator (``generate``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dbplatform.seeding.csv_text import Block, Change, Shape, blocks, copy_lines, header_of
from dbplatform.seeding.files import SeedFile
from dbplatform.seeding.generate import Generated
from dbplatform.seeding.json_lines import JsonShape, copy_blocks, objects


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvContent:
    """A CSV file: its columns as (column of the table, field of the file)."""

    file: SeedFile
    width: int
    columns: tuple[tuple[str, int], ...]
    nulls: frozenset[bytes] | None

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the table that are filled."""
        return tuple(target for target, _ in self.columns)

    def lines(self, changes: Mapping[str, Change]) -> Iterator[list[bytes]]:
        """Lines of COPY's text format, some at a time."""
        shape = Shape(
            width=self.width,
            picked=[i for _, i in self.columns],
            nulls=self.nulls,
            changed={i: changes[target] for i, target in enumerate(self.targets) if target in changes},
        )
        for block in self._blocks():
            yield copy_lines(block, shape, self.file.name)

    def line_of(self, copied: int) -> int | None:
        """The line of the file that became this line of COPY."""
        seen = 0
        for block in self._blocks():
            for index, record in enumerate(block.records):
                if record.removesuffix(b"\r") or self.width == 1:
                    seen += 1
                    if seen == copied:
                        return block.line_of(index)
        return None

    def _blocks(self) -> Iterator[Block]:
        with self.file.open() as stream:
            parts = blocks(stream, self.file.name)
            _, rest = header_of(parts, self.file.name)
            yield rest
            yield from parts


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonContent:
    """A file of JSON lines: its columns as (column of the table, key); ``documents`` are the keys of JSON columns."""

    file: SeedFile
    columns: tuple[tuple[str, str], ...]
    documents: frozenset[str]

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the table that are filled."""
        return tuple(target for target, _ in self.columns)

    def lines(self, changes: Mapping[str, Change]) -> Iterator[list[bytes]]:
        """Lines of COPY's text format, some at a time."""
        shape = JsonShape(
            keys=tuple(key for _, key in self.columns),
            documents=self.documents,
            changed={key: changes[target] for target, key in self.columns if target in changes},
        )
        with self.file.open() as stream:
            yield from copy_blocks(stream, shape, self.file.name)

    def line_of(self, copied: int) -> int | None:
        """The line of the file that became this line of COPY."""
        with self.file.open() as stream:
            for seen, (line, _) in enumerate(objects(stream, self.file.name), start=1):
                if seen == copied:
                    return line
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptContent:
    """A file of SQL, which fills one table or several."""

    file: SeedFile

    @property
    def targets(self) -> tuple[str, ...]:
        """Not known: the script says it."""
        return ()

    def text(self) -> str:
        """The script."""
        return self.file.path.read_text(encoding="utf-8-sig")


Content = CsvContent | JsonContent | ScriptContent | Generated


def name_of(content: Content) -> str:
    """The file's name, or ``generated``."""
    return content.name if isinstance(content, Generated) else content.file.name


def bytes_of(content: Content) -> int:
    """The size of the file on disk."""
    return 0 if isinstance(content, Generated) else content.file.bytes

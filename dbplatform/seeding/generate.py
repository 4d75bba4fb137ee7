"""Generated tables: rows made block by block, with the keys of the tables that they refer to."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbplatform.errors import VariableNotSet
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.batches import Chunker, Source
from dbplatform.seeding.errors import SeedMistake
from dbplatform.seeding.generators import (
    BLOCK_ROWS,
    Block,
    Column,
    bijection,
    in_order,
    numbered,
    spread,
    values,
    with_nulls,
)
from dbplatform.seeding.passwords import hasher

if TYPE_CHECKING:
    import pyarrow as pa

_ENDS_IN_NUMBER = re.compile(r"(?: |\.)\d+(?=@|$)")
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A table whose rows are made: ``columns`` by name; a composite reference stands under ``a, b``."""

    table: Relation
    columns: Mapping[str, Column]
    rows: int
    seed: int
    locale: str
    rounds: int

    @property
    def name(self) -> str:
        """What people read where other tables have a file."""
        return "generated"

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the table, in the order of the declaration."""
        return tuple(name for key in self.columns for name in names_of(key))

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns that stay as they are in rows that are there."""
        return tuple(key for key, column in self.columns.items() if column.bcrypt is not None)

    def source(
        self,
        connection: AnyConnection,
        siblings: Mapping[Relation, Generated],
        *,
        not_null: frozenset[str],
        moved: Mapping[str, timedelta],
    ) -> Source:
        """The rows. ``siblings`` are the tables of the same transaction, whose keys are not there yet; times of the
        columns ``moved`` are moved by so much.

        Reads the keys of all tables that are referred to. Raises ``SeedMistake`` and
        ``VariableNotSet``.
        """
        made = _Making(self, connection, siblings, not_null)

        def chunks(_: Chunker) -> Iterator[Sequence[Any]]:
            for block in self._blocks():
                row = made.block(block)
                for name, length in moved.items():
                    row[name] = _moved(name, row[name], length)
                yield [row[name] for name in self.targets]

        return Source(columns=self.targets, chunks=chunks)

    def keys(self, columns: Sequence[str]) -> list[pa.Array]:
        """The values of some columns in all rows, as texts. For columns that read no other table."""
        import pyarrow as pa

        wanted = {name: self.columns[name] for name in columns}
        if wrong := [name for name, column in wanted.items() if column.kind in ("reference", "faker", "bcrypt")]:
            raise SeedMistake(
                f"The column {wrong[0]} of {self.table} is referred to before its rows are there.",
                hint="Generate it as a sequence, an integer, a uuid or a text.",
            )
        found: dict[str, list[pa.Array]] = {name: [] for name in columns}
        for block in self._blocks():
            row: dict[str, Any] = {}
            for name in in_order(dict(self.columns)):
                if self.columns[name].kind not in ("reference", "faker", "bcrypt"):
                    row[name] = values(name, self.columns[name], block, row)
            for name in columns:
                column = row[name] if isinstance(row[name], pa.Array) else pa.array([str(v) for v in row[name]])
                found[name].append(column.cast(pa.string()))
        return [pa.concat_arrays(parts) for parts in found.values()]

    def _blocks(self) -> Iterator[Block]:
        stream = f"{self.seed}/{self.table}"
        for start in range(0, self.rows, BLOCK_ROWS):
            yield Block(stream=stream, start=start, rows=min(BLOCK_ROWS, self.rows - start))


def _moved(name: str, column: Any, length: timedelta) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column, pa.Array) or not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise SeedMistake(f"The generated column {name} cannot be shifted.", hint="Shift a timestamp or a date.")
    if pa.types.is_date(column.type):
        return pc.add(column.cast(pa.int32()), pa.scalar(length.days, pa.int32())).cast(pa.date32())
    return pc.add(column, pa.scalar(length, pa.duration("us")))


def names_of(key: str) -> list[str]:
    """``a, b`` names two columns."""
    return [name.strip() for name in key.split(",")]


class _Making:
    """What is looked up once for all blocks: pools of words, keys, hashes."""

    def __init__(
        self,
        generated: Generated,
        connection: AnyConnection,
        siblings: Mapping[Relation, Generated],
        not_null: frozenset[str],
    ) -> None:
        self.generated = generated
        self.order = in_order(dict(generated.columns))
        self.not_null = not_null
        self.words: dict[str, list[str]] = {}
        self.keys: dict[str, list[pa.Array]] = {}
        self.hashes: dict[str, str] = {}
        for key, column in generated.columns.items():
            if column.integer is not None and column.unique:
                self._enough(
                    key, column.integer.max - column.integer.min + 1, "between its min and max are {:,} numbers"
                )
            if column.faker is not None:
                self.words[key] = self._pool(key, column)
            elif column.reference is not None:
                self.keys[key] = self._keys(connection, key, column, siblings)
            elif column.bcrypt is not None:
                self.hashes[key] = _hash_of(column, generated.rounds, generated.table)

    def block(self, block: Block) -> dict[str, Any]:
        """All columns of some rows, by name."""
        row: dict[str, Any] = {}
        for key in self.order:
            column = self.generated.columns[key]
            found = self._parts(key, column, block, row)
            for name, part in zip(names_of(key), found, strict=True):
                row[name] = with_nulls(key, column, block, part)
        return row

    def _parts(self, key: str, column: Column, block: Block, row: dict[str, Any]) -> list[Any]:
        if key in self.words:
            words = self.words[key]
            if not column.unique:
                return [[words[i] for i in spread(key, block, len(words)).tolist()]]
            factor, offset = bijection(f"{block.stream}/{key}", len(words))
            size = len(words)
            numbers = (n // size * size + (n % size * factor + offset) % size for n in block.numbers().tolist())
            return [[numbered(words, n) for n in numbers]]
        if key in self.keys:
            return self._chosen(key, column, block)
        if key in self.hashes:
            return [[self.hashes[key]] * block.rows]
        return [values(key, column, block, row)]

    def _chosen(self, key: str, column: Column, block: Block) -> list[Any]:
        """Keys of the parent; a row that refers to its own table chooses among those before it."""
        import numpy as np
        import pyarrow as pa

        keys = self.keys[key]
        assert column.reference is not None
        if column.reference.table != self.generated.table or column.unique:
            chosen = pa.array(spread(key, block, len(keys[0]), unique=column.unique))
            return [part.take(chosen) for part in keys]
        numbers = block.numbers()
        before = (block.uniform(key) * np.maximum(numbers, 1)).astype(np.int64)
        first = numbers == 0
        optional = not self.not_null.issuperset(names_of(key))
        chosen = pa.array(before, mask=first if optional else np.zeros_like(first))
        return [part.take(chosen) for part in keys]

    def _pool(self, key: str, column: Column) -> list[str]:
        """Words of Faker, the same ones each time, and none twice where they are to be unique."""
        # A third of a second to import: only where a seed asks for it.
        from faker import Faker

        assert column.faker is not None
        fake = column.faker
        try:
            faker = Faker(self.generated.locale)
        except AttributeError as error:
            raise SeedMistake(f"Faker has no locale {self.generated.locale!r}.", hint="Such as en_US.") from error
        provider = getattr(faker, fake.provider, None)
        if not callable(provider):
            raise SeedMistake(
                f"Faker has no provider {fake.provider!r} for {self.generated.table}.{key}.",
                hint="See https://faker.readthedocs.io/en/stable/providers.html.",
            )
        faker.seed_instance(f"{self.generated.seed}/{self.generated.table}/{key}")
        if not column.unique:
            return [str(provider(**fake.arguments)) for _ in range(fake.pool)]
        found: dict[str, None] = {}
        for _ in range(fake.pool * _TRIES):
            word = str(provider(**fake.arguments))
            if not _ENDS_IN_NUMBER.search(word):
                found[word] = None
            if len(found) == fake.pool:
                break
        if not found:
            raise SeedMistake(
                f"{fake.provider} gives no words that can be made unique for {self.generated.table}.{key}.",
                hint="Write a text with the number of the row: text: 'word-{n}'.",
            )
        return list(found)

    def _keys(
        self, connection: AnyConnection, key: str, column: Column, siblings: Mapping[Relation, Generated]
    ) -> list[pa.Array]:
        reference = column.reference
        assert reference is not None
        own = self.generated.table
        columns = reference.columns or referenced(connection, own, names_of(key), reference.table)
        if len(columns) != len(names_of(key)):
            raise SeedMistake(
                f"{own}: {key} refers to {len(columns)} columns of {reference.table} ({', '.join(columns)}).",
                hint="Name as many columns on both sides: reference: {table: ..., columns: [...]}.",
            )
        sibling = siblings.get(reference.table)
        found = sibling.keys(columns) if sibling is not None else keys_there(connection, reference.table, columns)
        rows = len(found[0])
        if not rows:
            raise SeedMistake(f"{own}: {key} refers to {reference.table}, which is empty.", hint="Seed it before.")
        if column.unique:
            self._enough(key, rows, f"{reference.table} has {{:,}} rows")
        return found

    def _enough(self, key: str, there: int, words: str) -> None:
        if there < self.generated.rows:
            raise SeedMistake(
                f"{self.generated.table}: {self.generated.rows:,} rows are to have each a {key} of its own, and "
                f"{words.format(there)}.",
                hint="Generate fewer rows, or leave out unique.",
            )


def referenced(connection: AnyConnection, table: Relation, columns: Sequence[str], parent: Relation) -> tuple[str, ...]:
    """The columns that a foreign key on these columns names, else the primary key of the parent."""
    row = connection.execute(
        """
        select array(select a.attname::text from unnest(k.confkey) with ordinality u(n, at)
                     join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n order by at)
        from pg_constraint k
        where k.confrelid = to_regclass(%(parent)s) and (
            k.contype = 'f' and k.conrelid = to_regclass(%(table)s) and %(columns)s::text[] = array(
                select a.attname::text from unnest(k.conkey) with ordinality u(n, at)
                join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by at))
        union all
        select array(select a.attname::text from unnest(k.conkey) with ordinality u(n, at)
                     join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by at)
        from pg_constraint k where k.contype = 'p' and k.conrelid = to_regclass(%(parent)s)
        limit 1
        """,
        {"parent": str(parent), "table": str(table), "columns": list(columns)},
    ).fetchone()
    if row is None:
        raise SeedMistake(
            f"{table} is to refer to {parent}, which has no primary key.",
            hint="Name its columns: reference: {table: ..., columns: [...]}.",
        )
    return tuple(row[0])


def keys_there(connection: AnyConnection, table: Relation, columns: Sequence[str]) -> list[pa.Array]:
    """The keys of a table as texts, in their order, without NULLs. Reads all of it; ACCESS SHARE."""
    import pyarrow as pa
    from pyarrow import csv

    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    whole = sql.SQL(" and ").join(sql.SQL("{} is not null").format(sql.Identifier(name)) for name in columns)
    statement = sql.SQL("copy (select {0} from {1} where {2} order by {0}) to stdout (format csv, force_quote *)")
    text = io.BytesIO()
    with connection.cursor() as cursor, cursor.copy(statement.format(names, table.identifier, whole)) as copy:
        for data in copy:
            text.write(data)
    if not text.tell():
        return [pa.array([], pa.string()) for _ in columns]
    text.seek(0)
    read = csv.read_csv(
        text,
        read_options=csv.ReadOptions(column_names=list(columns)),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types={name: pa.string() for name in columns}),
    )
    return [column.combine_chunks() for column in read.columns]


def _hash_of(column: Column, rounds: int, table: Relation) -> str:
    """One hash for all rows: at millions of them, one each would take days."""
    password = column.bcrypt
    assert password is not None
    text = password.value
    if password.env is not None:
        text = os.environ.get(password.env)
        if not text:
            raise VariableNotSet(
                variable=password.env, purpose=f"holds the password of {table}", hint=f"export {password.env}=..."
            )
    assert text is not None
    try:
        return hasher(rounds)(text.encode()).decode()
    except ValueError as error:
        raise SeedMistake(f"{table}: {error}.", hint="Shorten it.") from error

"""The statements that make a partitioned table of a plain one.

Only the swap takes ACCESS EXCLUSIVE for more than one statement, and every statement of it touches the catalog alone:
nothing is read or written of the rows, because the CHECK proves the range and each index and foreign key is matched.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from dbplatform.partitioning.conversion.names import Names
from dbplatform.partitioning.conversion.shape import Index, Shape
from dbplatform.partitioning.conversion.steps import (
    Step,
    add_incoming,
    alter,
    comment,
    comment_on_constraint,
    create_policy,
    create_trigger,
    drop_incoming,
    drop_trigger,
    index_comments,
    lock_tables,
    lock_view,
    move_identity,
    names_of,
    own_sequence,
    rename,
    rename_index,
    replace_view,
    rights,
    set_options,
    validate,
)
from dbplatform.postgres.identifiers import Relation


def check_steps(names: Names, column: str, bound: str) -> Iterator[Step]:
    """The CHECK that new rows obey from here on."""
    yield from lock_tables([names.table], "share update exclusive")
    yield alter(
        names.table,
        sql.SQL("add constraint {} check ({} < {}) not valid").format(
            sql.Identifier(names.check), sql.Identifier(column), sql.Literal(bound)
        ),
    )


def validate_steps(names: Names) -> Iterator[Step]:
    """The CHECK proven for all rows."""
    yield validate(names.table, names.check)


def drop_check(table: Relation, names: Names) -> Step:
    """The CHECK is not needed where the bound of the partition says the same."""
    return alter(table, sql.SQL("drop constraint {}").format(sql.Identifier(names.check)))


def key_index(table: Relation, name: str, columns: tuple[str, ...]) -> Step:
    """A unique index that becomes a primary key later."""
    statement = sql.SQL("create unique index concurrently {} on {} ({})").format(
        sql.Identifier(name), table.identifier, names_of(columns)
    )
    return Step(statement=statement, lock=f"SHARE UPDATE EXCLUSIVE on {table}")


def drop_index(table: Relation, name: str) -> Step:
    """An index that an interrupted or undone conversion left."""
    statement = sql.SQL("drop index concurrently {}").format(Relation(table.schema, name).identifier)
    return Step(statement=statement, lock=f"SHARE UPDATE EXCLUSIVE on {table}")


def wide_columns(shape: Shape, column: str) -> tuple[str, ...]:
    """The columns of the primary key with the partition column behind them."""
    key = shape.primary_key
    assert key is not None
    return (*key.columns, column)


def guards(shape: Shape) -> Iterator[Step]:
    """Keep everybody else's DDL away, while readers and writers go on."""
    yield from lock_tables(_everyone(shape), "share update exclusive")


def exclusive(shape: Shape) -> Iterator[Step]:
    """The locks of a swap before anything that needs them, in the order in which most transactions take them: views
    before what they read, tables in the order in which their rows must be inserted."""
    for view in shape.views:
        yield lock_view(view)
    yield from lock_tables(_referenced(shape), "share row exclusive")
    yield from lock_tables([shape.table, *(key.table for key in shape.incoming)], "access exclusive")


def swap_steps(shape: Shape, names: Names, column: str, bound: str) -> Iterator[Step]:
    """One transaction: the partitioned table takes the name, the plain one becomes its partition below ``bound``."""
    table, legacy, aside = names.table, names.legacy, names.aside
    yield from _made_aside(shape, names, column)
    yield from exclusive(shape)
    for key in shape.incoming:
        yield drop_incoming(key, table)
    for trigger in shape.triggers:
        yield drop_trigger(trigger, table)
    for sequence in shape.identities:
        carried = shape.sequence_grants[sequence.column]
        yield from move_identity(sequence, source=table, onto=aside, carried=carried, instead_of=shape.default_grantees)
    yield rename(table, legacy)
    for index in shape.indexes:
        if not names.builds(index.name):
            yield rename_index(table.schema, index.name, names.of_legacy(index.name))
    yield rename(aside, table)
    if names.key is not None:
        yield alter(legacy, sql.SQL("drop constraint {}").format(sql.Identifier(names.of_legacy(names.key))))
        yield alter(
            legacy,
            sql.SQL("add constraint {} primary key using index {}").format(
                sql.Identifier(names.of_legacy(names.key)), sql.Identifier(names.wide_key)
            ),
        )
    for index in shape.indexes:
        if not names.builds(index.name):
            yield from _create_index(shape, names, index, column)
    for constraint in shape.foreign_keys:
        action = sql.SQL("add constraint {} {}").format(sql.Identifier(constraint.name), sql.SQL(constraint.definition))
        yield alter(table, action, lock=f"SHARE ROW EXCLUSIVE on {constraint.references} and")
        if constraint.comment is not None:
            yield comment_on_constraint(constraint.name, table, constraint.comment)
    attach = sql.SQL("attach partition {} for values from (minvalue) to ({})").format(
        legacy.identifier, sql.Literal(bound)
    )
    yield alter(table, attach, lock=f"ACCESS EXCLUSIVE on {legacy}, SHARE UPDATE EXCLUSIVE")
    yield drop_check(legacy, names)
    for policy in shape.policies:
        yield create_policy(policy, table)
    for trigger in shape.triggers:
        yield from create_trigger(trigger, table)
    for key in shape.incoming:
        yield from add_incoming(key, table)
    for sequence in shape.sequences:
        if not sequence.identity:
            yield own_sequence(sequence, table)
    for view in shape.views:
        yield replace_view(view)


def reference_steps(shape: Shape, *, all_of_them: bool = False) -> Iterator[Step]:
    """Foreign keys of other tables, proven anew; all of them: as they will be behind the swap."""
    for key in shape.incoming:
        if all_of_them or not key.validated:
            yield validate(key.table, key.name, also=f", ROW SHARE on {shape.table}")


def analyze_steps(names: Names) -> Iterator[Step]:
    """Statistics of the whole, which autovacuum does not make for a partitioned table."""
    statement = sql.SQL("analyze {}").format(names.table.identifier)
    yield Step(statement=statement, lock=f"SHARE UPDATE EXCLUSIVE on {names.table}")


def _made_aside(shape: Shape, names: Names, column: str) -> Iterator[Step]:
    aside = names.aside
    tablespace: sql.SQL | sql.Composed = sql.SQL("")
    if shape.tablespace is not None:
        tablespace = sql.SQL(" tablespace {}").format(sql.Identifier(shape.tablespace))
    # Identity follows by name; indexes come when their names are free.
    statement = sql.SQL(
        "create table {} (like {} including all excluding indexes excluding identity) partition by range ({}){}"
    ).format(aside.identifier, names.table.identifier, sql.Identifier(column), tablespace)
    yield Step(statement=statement, lock=f"ACCESS SHARE on {names.table}")
    yield drop_check(aside, names)
    yield from rights(shape, aside, instead_of=shape.default_grantees)
    for one in shape.columns:
        if one.statistics is not None:
            action = sql.SQL("alter column {} set statistics {}").format(
                sql.Identifier(one.name), sql.Literal(one.statistics)
            )
            yield alter(aside, action)
        if one.options:
            yield alter(aside, set_options(one.name, one.options))
    if shape.comment is not None:
        yield comment(sql.SQL("table {}").format(aside.identifier), shape.comment)


def _create_index(shape: Shape, names: Names, index: Index, column: str) -> Iterator[Step]:
    table = names.table
    if index.kind:
        yield alter(
            table,
            sql.SQL("add constraint {} {}").format(
                sql.Identifier(index.name),
                sql.SQL("primary key ({})").format(names_of(wide_columns(shape, column)))
                if index.name == names.key
                else sql.SQL(index.constraint or ""),
            ),
        )
    else:
        statement = sql.SQL("create {} {} on {} {}").format(
            sql.SQL("unique index" if index.unique else "index"),
            sql.Identifier(index.name),
            table.identifier,
            sql.SQL(index.tail),
        )
        yield Step(statement=statement, lock=f"SHARE on {table}")
    yield from index_comments(index, table)


def _everyone(shape: Shape) -> list[Relation]:
    return [shape.table, *(key.table for key in shape.incoming), *_referenced(shape)]


def _referenced(shape: Shape) -> list[Relation]:
    return sorted({key.references for key in shape.foreign_keys if key.references is not None})

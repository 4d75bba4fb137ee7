"""The statements that both directions share: each with the lock that it takes and on what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from dbplatform.partitioning.conversion.shape import Grant, Incoming, Index, RowPolicy, Sequence, Shape, Trigger, View
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

#: The words of pg_policy.polcmd.
_COMMANDS = {"*": "all", "r": "select", "a": "insert", "w": "update", "d": "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One statement, and the lock that it takes."""

    statement: sql.SQL | sql.Composed
    lock: str

    def text(self, connection: AnyConnection) -> str:
        """The statement as a person would type it."""
        return self.statement.as_string(connection)


def alter(table: Relation, action: sql.Composable, *, lock: str = "ACCESS EXCLUSIVE") -> Step:
    """``ALTER TABLE``."""
    statement = sql.SQL("alter table {} {}").format(table.identifier, action)
    return Step(statement=statement, lock=f"{lock} on {table}")


def lock_tables(tables: Iterable[Relation], mode: str) -> Iterator[Step]:
    """One ``LOCK TABLE`` for all of them, none for none."""
    ordered = list(dict.fromkeys(tables))
    if ordered:
        names = sql.SQL(", ").join(table.identifier for table in ordered)
        statement = sql.SQL("lock table {} in {} mode").format(names, sql.SQL(mode))
        yield Step(statement=statement, lock=f"{mode.upper()} on {', '.join(map(str, ordered))}")


def names_of(columns: Iterable[str]) -> sql.Composed:
    """``"a", "b"``."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def rename(table: Relation, to: Relation) -> Step:
    """A table's new name, in the same schema."""
    return alter(table, sql.SQL("rename to {}").format(sql.Identifier(to.name)))


def rename_index(schema: str, name: str, to: str) -> Step:
    """An index's new name, and that of the constraint behind it."""
    index = Relation(schema, name)
    statement = sql.SQL("alter index {} rename to {}").format(index.identifier, sql.Identifier(to))
    return Step(statement=statement, lock=f"SHARE UPDATE EXCLUSIVE on {index}")


def rights(shape: Shape, onto: Relation, *, instead_of: Iterable[str | None]) -> Iterator[Step]:
    """Owner, grants and the switches of row-level security, as the table has them; ``instead_of``: who loses all."""
    yield alter(onto, sql.SQL("owner to {}").format(sql.Identifier(shape.owner)))
    yield from grants(shape.grants, onto, "table", instead_of=instead_of)
    yield alter(onto, sql.SQL("enable row level security" if shape.row_security else "disable row level security"))
    forced = "force row level security" if shape.force_row_security else "no force row level security"
    yield alter(onto, sql.SQL(forced))


def grants(found: Iterable[Grant], onto: Relation, kind: str, *, instead_of: Iterable[str | None]) -> Iterator[Step]:
    """The same rights for the same roles, and none that default privileges gave."""
    for role in instead_of:
        statement = sql.SQL("revoke all on {} {} from {}").format(sql.SQL(kind), onto.identifier, _role(role))
        yield Step(statement=statement, lock="none")
    for column, role, privilege, grantable in found:
        what: sql.Composable = sql.SQL(privilege)
        if column is not None:
            what = sql.SQL("{} ({})").format(what, sql.Identifier(column))
        statement = sql.SQL("grant {} on {} {} to {}{}").format(
            what, sql.SQL(kind), onto.identifier, _role(role), sql.SQL(" with grant option" if grantable else "")
        )
        yield Step(statement=statement, lock="none")


def create_policy(policy: RowPolicy, table: Relation) -> Step:
    """A policy of row-level security."""
    statement = sql.SQL("create policy {} on {} as {} for {} to {}{}{}").format(
        sql.Identifier(policy.name),
        table.identifier,
        sql.SQL("permissive" if policy.permissive else "restrictive"),
        sql.SQL(_COMMANDS[policy.command]),
        sql.SQL(", ").join(map(_role, policy.roles)),
        _clause(" using ({})", policy.using),
        _clause(" with check ({})", policy.check),
    )
    return Step(statement=statement, lock=f"ACCESS EXCLUSIVE on {table}")


def drop_policy(policy: RowPolicy, table: Relation) -> Step:
    """A policy that another one takes the place of."""
    statement = sql.SQL("drop policy {} on {}").format(sql.Identifier(policy.name), table.identifier)
    return Step(statement=statement, lock=f"ACCESS EXCLUSIVE on {table}")


def drop_trigger(trigger: Trigger, table: Relation) -> Step:
    """A trigger that the other table gets."""
    statement = sql.SQL("drop trigger {} on {}").format(sql.Identifier(trigger.name), table.identifier)
    return Step(statement=statement, lock=f"ACCESS EXCLUSIVE on {table}")


def create_trigger(trigger: Trigger, table: Relation) -> Iterator[Step]:
    """A trigger by its definition, on the table that bears the name now."""
    yield Step(statement=sql.SQL(trigger.definition), lock=f"SHARE ROW EXCLUSIVE on {table}")
    if trigger.comment is not None:
        on = sql.SQL("trigger {} on {}").format(sql.Identifier(trigger.name), table.identifier)
        yield comment(on, trigger.comment)


def drop_incoming(key: Incoming, table: Relation) -> Step:
    """A foreign key that is made anew in the same transaction."""
    action = sql.SQL("drop constraint {}").format(sql.Identifier(key.name))
    return Step(
        statement=alter(key.table, action).statement,
        lock=f"ACCESS EXCLUSIVE on {key.table}, ACCESS EXCLUSIVE on {table}",
    )


def add_incoming(key: Incoming, table: Relation) -> Iterator[Step]:
    """A foreign key to whatever table bears the name now: kept from here on, validated later without a hard lock."""
    definition = key.definition.removesuffix(" NOT VALID")
    action = sql.SQL("add constraint {} {} not valid").format(sql.Identifier(key.name), sql.SQL(definition))
    yield Step(
        statement=alter(key.table, action).statement,
        lock=f"SHARE ROW EXCLUSIVE on {key.table}, SHARE ROW EXCLUSIVE on {table}",
    )
    if key.comment is not None:
        yield comment_on_constraint(key.name, key.table, key.comment)


def validate(table: Relation, constraint: str, *, also: str = "") -> Step:
    """Prove a constraint by reading the table, while it is read and written."""
    action = sql.SQL("validate constraint {}").format(sql.Identifier(constraint))
    return Step(statement=alter(table, action).statement, lock=f"SHARE UPDATE EXCLUSIVE on {table}{also}")


def lock_view(view: View) -> Step:
    """Lock the view alone, by giving it the owner that it has: LOCK TABLE would lock every table that it reads, too."""
    statement = sql.SQL("alter view {} owner to {}").format(view.relation.identifier, sql.Identifier(view.owner))
    return Step(statement=statement, lock=f"ACCESS EXCLUSIVE on {view.relation}")


def replace_view(view: View) -> Step:
    """A view by its definition, reading whatever table bears the name now; its rights, owner and comment stay."""
    options = sql.SQL(" with ({})").format(_options(view.options)) if view.options else sql.SQL("")
    statement = sql.SQL("create or replace view {}{} as {}").format(
        view.relation.identifier, options, sql.SQL(view.definition)
    )
    return Step(statement=statement, lock=f"ACCESS EXCLUSIVE on {view.relation}")


def set_options(column: str, options: Iterable[str]) -> sql.Composed:
    """``ALTER COLUMN ... SET (n_distinct = ...)``."""
    return sql.SQL("alter column {} set ({})").format(sql.Identifier(column), _options(options))


def move_identity(
    sequence: Sequence,
    *,
    source: Relation,
    onto: Relation,
    carried: Iterable[Grant],
    instead_of: Iterable[str | None],
) -> Iterator[Step]:
    """An identity column with its sequence: the same name, settings, rights and next value.

    Writers are locked out, so nobody takes a value in between. ``source`` keeps the old sequence under another name.
    """
    aside = Relation(sequence.relation.schema, f"dbplatform_{sequence.oid}")
    column = sql.Identifier(sequence.column)
    statement = sql.SQL("alter sequence {} rename to {}").format(
        sequence.relation.identifier, sql.Identifier(aside.name)
    )
    yield Step(statement=statement, lock=f"ACCESS EXCLUSIVE on {sequence.relation}")
    settings = sql.SQL(
        "alter column {} add generated {} as identity (sequence name {} start with {} increment by {} minvalue {} "
        "maxvalue {} cache {} {})"
    ).format(
        column,
        sql.SQL("always" if sequence.identity == "a" else "by default"),
        sequence.relation.identifier,
        *map(sql.Literal, (sequence.start, sequence.increment, sequence.least, sequence.most, sequence.cache)),
        sql.SQL("cycle" if sequence.cycle else "no cycle"),
    )
    yield alter(onto, settings)
    value = sql.SQL("select setval({}, last_value, is_called) from {}").format(
        sql.Literal(str(sequence.relation)), aside.identifier
    )
    yield Step(statement=value, lock=f"ROW EXCLUSIVE on {sequence.relation}")
    yield from grants(carried, sequence.relation, "sequence", instead_of=instead_of)
    yield alter(source, sql.SQL("alter column {} drop identity").format(column))


def own_sequence(sequence: Sequence, table: Relation) -> Step:
    """A serial column's sequence goes with the table that bears the name."""
    statement = sql.SQL("alter sequence {} owned by {}.{}").format(
        sequence.relation.identifier, table.identifier, sql.Identifier(sequence.column)
    )
    return Step(statement=statement, lock=f"SHARE ROW EXCLUSIVE on {sequence.relation}")


def index_comments(index: Index, table: Relation) -> Iterator[Step]:
    """The comments on an index and on the constraint behind it."""
    if index.comment is not None:
        yield comment(sql.SQL("index {}").format(Relation(table.schema, index.name).identifier), index.comment)
    if index.constraint_comment is not None:
        yield comment_on_constraint(index.name, table, index.constraint_comment)


def comment_on_constraint(name: str, table: Relation, text: str) -> Step:
    """``COMMENT ON CONSTRAINT``."""
    return comment(sql.SQL("constraint {} on {}").format(sql.Identifier(name), table.identifier), text)


def comment(on: sql.Composable, text: str) -> Step:
    """``COMMENT ON``."""
    statement = sql.SQL("comment on {} is {}").format(on, sql.Literal(text))
    return Step(statement=statement, lock="SHARE UPDATE EXCLUSIVE on it")


def _options(options: Iterable[str]) -> sql.Composed:
    pairs = (option.partition("=") for option in options)
    return sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(n), sql.Literal(v)) for n, _, v in pairs)


def _clause(words: str, expression: str | None) -> sql.Composable:
    return sql.SQL("") if expression is None else sql.SQL(words).format(sql.SQL(expression))


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("public") if name is None else sql.Identifier(name)

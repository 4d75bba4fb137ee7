"""The statements that make the plain table again of the partitioned one: the swap read from behind.

What hangs on the partitioned table is read from the catalog at that moment, so that what was added since comes along.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from dbplatform.partitioning.conversion.forward import exclusive
from dbplatform.partitioning.conversion.names import Names
from dbplatform.partitioning.conversion.shape import Shape
from dbplatform.partitioning.conversion.steps import (
    Step,
    add_incoming,
    alter,
    create_policy,
    create_trigger,
    drop_incoming,
    drop_policy,
    drop_trigger,
    index_comments,
    move_identity,
    names_of,
    own_sequence,
    rename,
    rename_index,
    replace_view,
    rights,
)


def unswap_steps(shape: Shape, legacy: Shape, names: Names, matches: dict[str, str]) -> Iterator[Step]:
    """One transaction: the rows of every other partition move into the plain table, which takes its name back.

    ``shape`` is the partitioned table, ``legacy`` its partition, ``matches`` the index of the partition for each index
    of the partitioned table.
    """
    table, aside = names.table, names.aside
    yield from exclusive(shape)
    # Silence would leave rows behind that a policy hides from the owner.
    yield Step(statement=sql.SQL("set local row_security = off"), lock="none")
    # Rows that move must not leave checks pending, or the table could not be altered.
    yield Step(statement=sql.SQL("set constraints all immediate"), lock="none")
    for key in shape.incoming:
        yield drop_incoming(key, table)
    for trigger in shape.triggers:
        yield drop_trigger(trigger, table)
    yield alter(table, sql.SQL("detach partition {}").format(legacy.table.identifier))
    yield from _plain_key(legacy, names)
    columns = names_of(one.name for one in legacy.columns if not one.generated)
    move = sql.SQL("insert into {} ({}) select {} from {}").format(
        legacy.table.identifier, columns, columns, table.identifier
    )
    yield Step(statement=move, lock=f"ROW EXCLUSIVE on {legacy.table}; every row outside of it moves now")
    for sequence in shape.identities:
        carried = shape.sequence_grants[sequence.column]
        yield from move_identity(
            sequence, source=table, onto=legacy.table, carried=carried, instead_of=shape.default_grantees
        )
    for sequence in shape.sequences:
        if not sequence.identity:
            yield own_sequence(sequence, legacy.table)
    yield rename(table, aside)
    yield rename(legacy.table, table)
    for view in shape.views:
        yield replace_view(view)
    for policy in legacy.policies:
        yield drop_policy(policy, table)
    for policy in shape.policies:
        yield create_policy(policy, table)
    yield Step(
        statement=sql.SQL("drop table {}").format(aside.identifier),
        lock="ACCESS EXCLUSIVE on it and its partitions, which are empty of what was not moved",
    )
    yield from rights(shape, table, instead_of=tuple(dict.fromkeys(role for _, role, _, _ in legacy.grants)))
    for parent, child in matches.items():
        yield rename_index(table.schema, child, parent)
    for index in shape.indexes:
        yield from index_comments(index, table)
    for trigger in shape.triggers:
        yield from create_trigger(trigger, table)
    for key in shape.incoming:
        yield from add_incoming(key, table)


def _plain_key(legacy: Shape, names: Names) -> Iterator[Step]:
    """The primary key without the partition column, in force before rows come back."""
    wide = legacy.primary_key
    if names.key is None or wide is None:
        return
    yield alter(legacy.table, sql.SQL("drop constraint {}").format(sql.Identifier(wide.name)))
    yield alter(
        legacy.table,
        sql.SQL("add constraint {} primary key using index {}").format(
            sql.Identifier(names.of_legacy(names.key)), sql.Identifier(names.plain_key)
        ),
    )

"""Moves the rows of one range out of a default partition, within the transaction that attaches their own partition.

Readers miss no row and see none twice: they wait for the parent, which is locked ACCESS EXCLUSIVE before the first row
moves, and plan behind it. Locking the default partition alone would not do: who has planned before the move and waits
for that lock goes on with the old plan and a new snapshot, and sees neither the old rows nor the new partition. What is
left is PostgreSQL's own caveat: a REPEATABLE READ transaction whose snapshot is older than the move, and which reads
the table for the first time after it, sees none of the moved rows (manual: "13.6 Caveats").

A move is no DELETE of the application: triggers do not fire, and foreign keys that refer to the rows do not act on it.
"""

from __future__ import annotations

from psycopg import sql

from dbplatform.partitioning.errors import RowsHeld
from dbplatform.partitioning.plan import NewPartition, literal
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation

# Triggers of the table that fire on a row's DELETE; those of a statement see no row.
_TRIGGERS = """
    select t.tgname, t.tgenabled::text, k.conname, t.tgisinternal
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_constraint k on k.oid = t.tgconstraint
    where n.nspname = %s and c.relname = %s and t.tgtype & 8 <> 0 and t.tgenabled <> 'D'
    order by t.tgenabled in ('A', 'R') desc, t.tgname
"""

# A generated column computes itself again.
_STORED = """
    select a.attname
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
    where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    order by a.attnum
"""


def move_rows(
    connection: AutocommitConnection,
    policy: PartitionPolicy,
    column_type: str,
    default: Relation,
    new: NewPartition,
) -> int:
    """Move the rows of the new partition's range into it, in the open transaction, and say how many there are.

    They are counted first: more than ``policy.move_at_most`` are not touched. Raises ``RowsHeld`` where a trigger or a
    foreign key would act on the move and the user may not keep it from doing so.
    """
    column = sql.Identifier(policy.column)
    inside = sql.SQL("{column} >= {lower} and {column} < {upper}").format(
        column=column,
        lower=sql.Literal(literal(new.bounds.lower, column_type)),
        upper=sql.Literal(literal(new.bounds.upper, column_type)),
    )
    count = sql.SQL("select count(*) from {} where {}").format(default.identifier, inside)
    row = connection.execute(count).fetchone()
    assert row is not None
    rows = int(row[0])
    if rows == 0 or rows > policy.move_at_most:
        return rows
    _silence_triggers(connection, default)
    stored = connection.execute(_STORED, (policy.table.schema, policy.table.name)).fetchall()
    names = sql.SQL(", ").join(sql.Identifier(name) for (name,) in stored)
    moved = connection.execute(
        sql.SQL(
            "with moved as (delete from only {default} where {inside} returning {names})"
            " insert into {new} ({names}) select {names} from moved"
        ).format(default=default.identifier, inside=inside, names=names, new=new.relation.identifier)
    ).rowcount
    if moved != rows:
        raise RowsHeld(
            partition=str(default),
            reason=f"{rows - moved} of {rows} rows in {new.bounds} stayed",
            hint="See what holds them: a trigger BEFORE DELETE, a rule, or row-level security.",
        )
    _restore_triggers(connection)
    return rows


def _silence_triggers(connection: AutocommitConnection, default: Relation) -> None:
    """Let no trigger and no foreign key act on the move; does nothing where there is none."""
    found = connection.execute(_TRIGGERS, (default.schema, default.name)).fetchone()
    if found is None:
        return
    name, enabled, constraint, internal = found
    what = f"the foreign key {constraint}" if internal else f"the trigger {name}"
    if enabled in ("A", "R"):
        raise RowsHeld(
            partition=str(default),
            reason=f"{what} fires on every DELETE, that of a move too",
            hint="Enable it plainly (ALTER TABLE ... ENABLE TRIGGER), or disable it for the time of the move.",
        )
    if not _may_silence(connection):
        raise RowsHeld(
            partition=str(default),
            reason=f"{what} would act on the move as if the rows were deleted",
            hint="Let the user keep it from that: GRANT SET ON PARAMETER session_replication_role TO ...;",
        )
    connection.execute("select set_config('session_replication_role', 'replica', true)")


def _may_silence(connection: AutocommitConnection) -> bool:
    """Before version 15 that was a superuser's right alone."""
    may = (
        "select has_parameter_privilege('session_replication_role', 'set')"
        if connection.info.server_version >= 150000
        else "select rolsuper from pg_roles where rolname = current_user"
    )
    return connection.execute(may).fetchone() == (True,)


def _restore_triggers(connection: AutocommitConnection) -> None:
    row = connection.execute("select current_setting('session_replication_role')").fetchone()
    if row == ("replica",):
        connection.execute("select set_config('session_replication_role', 'origin', true)")

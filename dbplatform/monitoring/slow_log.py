"""The server's log of slow statements: what would have to be set, setting it, and putting back what was before.

``log_min_duration_statement`` and ``log_statement`` are set for the one database, so that its neighbours on the server
log as before; ``log_line_prefix`` exists for the server alone, and is left where it says enough. What was before is in
the ledger before anything changes. Source: PostgreSQL manual, "Error Reporting and Logging", "ALTER DATABASE".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import sql
from sqlalchemy import select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import SettingChange
from dbplatform.postgres.catalog import may_read_file_settings
from dbplatform.postgres.connection import AutocommitConnection

Scope = Literal["database", "server"]

MIN_DURATION = "1s"
#: When, which process, which line of its session, who, where, by which program, from which machine.
PREFIX = "%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h "
_SAYS_ENOUGH = ({"%m", "%t", "%n"}, {"%p"}, {"%u"}, {"%d"}, {"%a"}, {"%h", "%r"})

_OF_DATABASE = """
    select split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
    from pg_db_role_setting s, unnest(s.setconfig) c
    where s.setrole = 0 and s.setdatabase = (select oid from pg_database where datname = current_database())
"""
_OF_SERVER = "select setting from pg_settings where name = 'log_line_prefix'"
_IN_AUTO_CONF = """
    select setting from pg_file_settings
    where name = 'log_line_prefix' and sourcefile like '%/postgresql.auto.conf' order by seqno desc limit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One setting to change; ``before`` is none where it is not set in this scope."""

    scope: Scope
    setting: str
    before: str | None
    after: str | None
    sql: str

    def as_json(self) -> dict[str, Any]:
        """One entry of ``changes``."""
        return {
            "scope": self.scope,
            "setting": self.setting,
            "before": self.before,
            "after": self.after,
            "sql": self.sql,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingPlan:
    """What has to change; nothing where it is as wanted. ``left`` says what is left alone, and why."""

    database: str
    changes: tuple[Change, ...]
    left: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of ``slow-queries --log ... --json``."""
        return {
            "database": self.database,
            "changes": [change.as_json() for change in self.changes],
            "left": list(self.left),
        }


def plan_logging(
    connection: AutocommitConnection, database: str, *, min_duration: str = MIN_DURATION, statements: str = "mod"
) -> LoggingPlan:
    """What has to be set so that statements of ``min_duration`` and longer are logged, and those of ``statements``
    (``none``, ``ddl``, ``mod``) always. Reads only. Sessions that are open keep what they have."""
    now = _of_database(connection)
    wanted = {"log_min_duration_statement": min_duration, "log_statement": statements}
    changes = [
        _change(connection, "database", setting, now.get(setting), value)
        for setting, value in wanted.items()
        if now.get(setting) != value
    ]
    left = []
    row = connection.execute(_OF_SERVER).fetchone()
    prefix = str(row[0]) if row is not None else ""
    if all(any(part in prefix for part in parts) for parts in _SAYS_ENOUGH):
        left.append(f"log_line_prefix is {prefix!r}, which says when, who, where, from where and which process")
    else:
        changes.append(_change(connection, "server", "log_line_prefix", _auto_conf(connection), PREFIX))
    return LoggingPlan(database=database, changes=tuple(changes), left=tuple(left))


def apply_logging(connection: AutocommitConnection, ledger: Ledger, plan: LoggingPlan) -> None:
    """Make the changes of a plan. What was before is written into the ledger first; may be run twice and killed.

    The user owns the database and may set these (a superuser, or GRANT SET ON PARAMETER); the prefix needs ALTER
    SYSTEM. Lock: none on tables. New sessions log by it; the prefix holds for all after the reload.
    """
    for change in plan.changes:
        assert change.after is not None
        with ledger.session() as session:
            known = session.scalars(_open(plan.database, change.scope, change.setting)).first()
            if known is None:
                session.add(
                    SettingChange(
                        database=plan.database,
                        scope=change.scope,
                        setting=change.setting,
                        before=change.before,
                        after=change.after,
                    )
                )
            else:
                known.after = change.after
        _execute(connection, change)


def plan_undo(connection: AutocommitConnection, ledger: Ledger, database: str) -> LoggingPlan:
    """What has to be put back. A setting that somebody has changed since is left as it is, and said. Reads only."""
    now = _of_database(connection)
    with ledger.session() as session:
        known = session.scalars(_open(database)).all()
    changes, left = [], []
    for one in known:
        value = now.get(one.setting) if one.scope == "database" else _auto_conf(connection)
        if value not in (one.after, one.before):
            left.append(f"{one.setting} is {value!r} by now, not {one.after!r}: somebody has changed it")
        else:
            scope: Scope = "database" if one.scope == "database" else "server"
            changes.append(_change(connection, scope, one.setting, value, one.before))
    return LoggingPlan(database=database, changes=tuple(changes), left=tuple(left))


def apply_undo(connection: AutocommitConnection, ledger: Ledger, plan: LoggingPlan) -> None:
    """Put back what was before, and close the record; may be run twice and killed."""
    for change in plan.changes:
        _execute(connection, change)
    with ledger.session() as session:
        for one in session.scalars(_open(plan.database)):
            one.undone_at = datetime.now(UTC)


def _open(database: str, *of: str) -> Any:
    statement = select(SettingChange).where(SettingChange.database == database, SettingChange.undone_at.is_(None))
    for column, value in zip((SettingChange.scope, SettingChange.setting), of, strict=False):
        statement = statement.where(column == value)
    return statement.order_by(SettingChange.id)


def _of_database(connection: AutocommitConnection) -> dict[str, str]:
    """What is set for the database, by ALTER DATABASE."""
    rows: list[tuple[str, str]] = connection.execute(_OF_DATABASE).fetchall()
    return dict(rows)


def _auto_conf(connection: AutocommitConnection) -> str | None:
    """What ALTER SYSTEM has set; none where the user may not see it, too: then it could not set it either."""
    if not may_read_file_settings(connection):
        return None
    found: Sequence[Any] | None = connection.execute(_IN_AUTO_CONF).fetchone()
    return str(found[0]) if found is not None else None


def _change(
    connection: AutocommitConnection, scope: Scope, setting: str, before: str | None, after: str | None
) -> Change:
    return Change(
        scope=scope,
        setting=setting,
        before=before,
        after=after,
        sql=_statement(connection, scope, setting, after).as_string(connection),
    )


def _statement(connection: AutocommitConnection, scope: Scope, setting: str, value: str | None) -> sql.Composed:
    whose = (
        sql.SQL("alter system")
        if scope == "server"
        else sql.SQL("alter database {}").format(sql.Identifier(connection.info.dbname))
    )
    name = sql.Identifier(setting)
    if value is None:
        return sql.SQL("{} reset {}").format(whose, name)
    return sql.SQL("{} set {} = {}").format(whose, name, sql.Literal(value))


def _execute(connection: AutocommitConnection, change: Change) -> None:
    connection.execute(_statement(connection, change.scope, change.setting, change.after))
    if change.scope == "server":
        connection.execute("select pg_reload_conf()")

"""Databases to restore into or try things out: made under a name of ours, then renamed or dropped, also after a kill.

A token is in the name and in the ``application_name`` of the session that made it. A database whose session is gone
was left by a killed process.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.backups.errors import ServerLacks
from dbplatform.backups.holding import unhurried
from dbplatform.backups.manifest import Locale
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.standbys import answered

_LEFT_BEHIND = """
    select d.datname, pg_database_size(d.oid) from pg_database d
    where d.datname ~ '^dbplatform_(restore|drill|replaced|trial|changed)_[0-9a-f]{12}$'
      and pg_has_role(d.datdba, 'usage')
      and not exists (select from pg_stat_activity a
                      where a.application_name = 'dbplatform restore ' || right(d.datname, 12))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A fresh database that only we know of, and the session that keeps it."""

    target: Target
    token: str
    maintenance: AutocommitConnection
    """Connected to another database of the same server."""

    @property
    def name(self) -> str:
        return self.target.name


@contextmanager
def maintained(server: Target) -> Iterator[tuple[AutocommitConnection, str]]:
    """A session on the server with a token of its own; first drops what killed restores have left there.

    Raises ``StandbyDoesNotAnswer`` where a commit waits for a standby of that server which is gone.
    """
    token = secrets.token_hex(6)
    with answered(server), connect(server, work=f"restore {token}") as connection:
        unhurried(connection)
        for name in left_behind(connection):
            drop(connection, name)
        yield connection, token


@contextmanager
def scratch_database(
    connection: AutocommitConnection, token: str, server: Target, locale: Locale, *, purpose: str
) -> Iterator[Scratch]:
    """An empty database ``dbplatform_<purpose>_<token>``, dropped at the end unless it was renamed.

    Made from ``template0``, with encoding and locale as they were. Raises ``ServerLacks`` for an unknown locale.
    """
    name = f"dbplatform_{purpose}_{token}"
    target = Target(name, make_conninfo(server.url, dbname=name))
    try:
        connection.execute(_create(name, locale, connection.info.server_version // 10000))
    except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue) as error:
        raise ServerLacks(
            id="to restore",
            what=f"the locale {locale.locale or locale.collate}",
            server=server.place,
            hint=(error.diag.message_primary or "") + ": restore to a server that has it.",
        ) from error
    try:
        yield Scratch(target=target, token=token, maintenance=connection)
    finally:
        if not connection.closed:
            drop(connection, name)


@contextmanager
def copied(scratch: Scratch, server: Target) -> Iterator[Target]:
    """A second database with the content of the scratch database, dropped at the end. Nobody may be connected to it."""
    name = f"dbplatform_changed_{scratch.token}"
    create = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(scratch.name))
    scratch.maintenance.execute(create)
    try:
        yield Target(name, make_conninfo(server.url, dbname=name))
    finally:
        if not scratch.maintenance.closed:
            drop(scratch.maintenance, name)


def left_behind(connection: AutocommitConnection) -> dict[str, int]:
    """The databases of ours on the server that killed processes have left, and their sizes in bytes; only reads."""
    return dict(connection.execute(_LEFT_BEHIND).fetchall())


def drop(connection: AutocommitConnection, name: str) -> None:
    """Drop a database if it exists, whoever is connected to it."""
    connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _create(name: str, locale: Locale, major: int) -> sql.Composed:
    options = {"encoding": locale.encoding, "lc_collate": locale.collate, "lc_ctype": locale.ctype}
    if major >= 15:
        options["locale_provider"] = locale.provider
    if locale.locale is not None and locale.provider != "libc":
        options["icu_locale" if locale.provider == "icu" else "builtin_locale"] = locale.locale
    if locale.rules is not None:
        options["icu_rules"] = locale.rules
    words = [sql.SQL("{} {}").format(sql.SQL(key), sql.Literal(value)) for key, value in options.items()]
    return sql.SQL("create database {} template template0 {}").format(sql.Identifier(name), sql.SQL(" ").join(words))

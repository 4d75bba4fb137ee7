"""One database of other people on the tests' server, and a project that is to adopt it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.postgres.connection import Target

#: Whom ``forum.sql`` grants rights to: roles of the server.
_ROLES = ("forum_app", "forum_reader", "Forum Moderators")


@contextmanager
def database_of(server_url: str, schema: str) -> Iterator[Target]:
    """The database that ``<schema>.sql`` makes, owned by a user who may do nothing else; dropped at the end."""
    owner = f"owner_{uuid.uuid4().hex[:12]}"
    url = make_conninfo(server_url, dbname=owner, user=owner, password="not-for-files")
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(
            sql.SQL("create role {} login createrole password 'not-for-files'").format(sql.Identifier(owner))
        )
        server.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(owner)))
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute((files("dbplatform_tests.adopted") / f"{schema}.sql").read_bytes())
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(sql.SQL("alter role {} nocreaterole").format(sql.Identifier(owner)))
        yield Target(schema, url)
    finally:
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(owner)))
            for role in (*_ROLES, owner):
                server.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))

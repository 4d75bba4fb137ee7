"""Histories of other migration tools, recognised by their tables."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

#: Table and tool. ``schema_migrations`` belongs to several, told apart by a column or a table beside it.
TOOLS = {
    "_prisma_migrations": "Prisma",
    "schema_migrations": "dbmate or a tool like it",
    "alembic_version": "Alembic",
    "knex_migrations": "Knex",
    "django_migrations": "Django",
    "databasechangelog": "Liquibase",
    "__EFMigrationsHistory": "Entity Framework",
    "goose_db_version": "goose",
    "_sqlx_migrations": "SQLx",
    "_yoyo_migration": "yoyo",
    "SequelizeMeta": "Sequelize",
    "__drizzle_migrations": "Drizzle",
    "__diesel_schema_migrations": "Diesel",
    "pgmigrations": "node-pg-migrate",
}

_FIND = """
    select n.nspname, c.relname,
           array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0),
           to_regclass(format('%%I.ar_internal_metadata', n.nspname)) is not null
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relname = any (%s) and n.nspname !~ '^pg_'
    order by 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignHistory:
    """A table in which another tool keeps what it has applied."""

    tool: str
    table: Relation
    rows: int

    def __str__(self) -> str:
        return f"{self.tool} ({self.table.words}, {self.rows} {'row' if self.rows == 1 else 'rows'})"


def foreign_histories(connection: AnyConnection) -> tuple[ForeignHistory, ...]:
    """The histories of other tools in the database. Only reads."""
    found = []
    for schema, name, columns, rails in connection.execute(_FIND, (list(TOOLS),)).fetchall():
        table = Relation(schema, name)
        row = connection.execute(sql.SQL("select count(*) from {}").format(table.identifier)).fetchone()
        assert row is not None
        found.append(ForeignHistory(tool=_tool(name, columns, rails), table=table, rows=row[0]))
    return tuple(found)


def _tool(name: str, columns: list[str], rails: bool) -> str:
    if name == "schema_migrations":
        if rails:
            return "Rails"
        if "dirty" in columns:
            return "golang-migrate"
        if "inserted_at" in columns:
            return "Ecto"
    return TOOLS[name]

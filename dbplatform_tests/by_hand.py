"""What a person does beside the platform, with psql."""

from __future__ import annotations

import psycopg

from dbplatform.postgres.connection import Target


def by_hand(database: Target, *statements: str) -> None:
    """Run statements, each by itself."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())

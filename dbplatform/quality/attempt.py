"""One question to PostgreSQL that may be refused: the reason in words, and the transaction goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from dbplatform.postgres.connection import SessionLost, SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.masks import reason_of

_T = TypeVar("_T")


class ChecksInterrupted(SessionLost):
    """The connection was lost while {table} was checked: {reason}."""


@dataclass(frozen=True, slots=True)
class Refused:
    """PostgreSQL could not do it; the reason in its words."""

    reason: str
    sqlstate: str | None = None


def attempt(
    connection: SnapshotConnection, relation: Relation, work: Callable[[], _T], *, masks: bool = False
) -> _T | Refused:
    """The work's answer, or why PostgreSQL refused it; the transaction goes on either way.

    ``masks`` says that PostgreSQL's words may quote a masked value.
    """
    try:
        with connection.transaction():
            return work()
    except psycopg.Error as error:
        # A standby that ends a read to go on with replay: the same read can be done elsewhere, so no check has erred.
        if connection.broken or connection.closed or isinstance(error, psycopg.errors.SerializationFailure):
            # From none: the chain of errors is shown, too.
            raise ChecksInterrupted(
                table=relation.words, reason=reason_of(error, masks=masks).rstrip("."), hint="Run the checks again."
            ) from None
        return Refused(reason_of(error, masks=masks), error.sqlstate)

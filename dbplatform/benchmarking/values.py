"""The parameters of benchmarks: values drawn from the data, put in place of ``:name``, and kept nowhere.

They go to the server as text of an unknown type, as a literal would, so that each takes the type that the statement
wants. Which of them a call gets follows from the number of its turn: both sides get the same ones, and so does a later
run of the same data.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from dbplatform.benchmarking.errors import NoValues
from dbplatform.postgres.connection import AutocommitConnection

_MOST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A statement with ``$1`` in place of its names, and the values that each may have."""

    name: str
    query: str
    values: tuple[tuple[str, ...], ...] = field(repr=False, default=())

    @property
    def values_sha256(self) -> str:
        """Tells whether the same values were drawn, and none of them."""
        return hashlib.sha256(repr(self.values).encode()).hexdigest()[:16]

    def of_turn(self, turn: int, many: int) -> list[tuple[str, ...]]:
        """The values of ``many`` calls."""
        # No secret hangs on it: the same turn has to draw the same values.
        drawn = random.Random(f"{self.name}/{turn}")
        return [tuple(drawn.choice(some) for some in self.values) for _ in range(many)]


def bind(connection: AutocommitConnection, name: str, query: str, params: Mapping[str, str]) -> Bound:
    """The statement with its parameters numbered and their values drawn, each by a query that may only read.

    Raises ``NoValues``.
    """
    text = query.strip().rstrip(";")
    values = []
    for number, (parameter, drawing) in enumerate(params.items(), start=1):
        # A cast has two colons.
        text, found = re.subn(rf"(?<![:\w]):{parameter}\b", f"${number}", text)
        if not found:
            raise NoValues(
                parameter=parameter,
                name=name,
                reason="the statement does not name it",
                hint=f"Write :{parameter} where its value belongs, or leave the parameter out.",
            )
        values.append(tuple(sorted(draw(connection, name, parameter, drawing))))
    return Bound(name=name, query=text, values=tuple(values))


def draw(connection: AutocommitConnection, name: str, parameter: str, drawing: str, *, most: int = _MOST) -> list[str]:
    """The values of a parameter as text, without NULL. Raises ``NoValues``."""
    asked = sql.SQL("select drawn.value::text from ({}) as drawn (value) where drawn.value is not null limit {}")
    # What is declared is SQL, as a statement is; the server takes it as one, and only to read.
    statement = asked.format(sql.SQL(drawing.strip().rstrip(";")), sql.Literal(most))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("set transaction read only")
            rows: Sequence[tuple[str, ...]] = connection.execute(statement, prepare=True).fetchall()
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        reason = (error.diag.message_primary or str(error)).rstrip(".")
        raise NoValues(parameter=parameter, name=name, reason=reason, hint="Correct its query.") from error
    if not rows:
        raise NoValues(
            parameter=parameter, name=name, reason="its query gave none", hint="Load data first, or correct its query."
        )
    return [value for (value,) in rows]

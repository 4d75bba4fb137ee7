"""The time of one statement as a client sees it: sent, run and answered; what becomes of the rows is not in it.

Each block is a transaction that only reads, which the server itself sees to; where the benchmark is declared as writing
it is rolled back. The statement is prepared, as drivers do with what comes often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import psycopg
from psycopg import RawCursor

from dbplatform.benchmarking.errors import BenchmarkFailed
from dbplatform.benchmarking.values import Bound
from dbplatform.postgres.connection import AutocommitConnection

#: A block takes about so long, by as many calls as that needs.
_BLOCK_S = 0.005
_MOST_CALLS = 50
#: From the sixth call on the plan of a prepared statement may be the general one: those before are warm-up.
_WARM_CALLS, _WARM_S, _WARM_AGAIN_S = 7, 1.0, 0.02

#: Work of the processor alone, of a few milliseconds: it tells how fast the machine is just now.
YARDSTICK = Bound(name="yardstick", query="select sum(i % 7) from generate_series(1, 10000) i")


class QueryTimer:
    """Times one statement, in one session after the other. ``calls`` are the seconds of each call that was measured.

    ``settings`` hold in its own transactions alone: two sides that differ in nothing else share a session, and with it
    its place on the machine.
    """

    def __init__(
        self,
        connection: AutocommitConnection,
        bound: Bound,
        *,
        writes: bool = False,
        settings: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._connection, self._bound, self._writes, self._clock = connection, bound, writes, clock
        # With settings it is a statement of its own, which keeps its own plan.
        self._settings = dict(settings or {})
        self._statement = f"{bound.query} /* with settings */".encode() if settings else bound.query.encode()
        self.repeat = 1
        self.calls: list[float] = []

    def warm(self) -> None:
        """Run it a few times, for a second at most, and find how many calls make a block. Raises as ``block``."""
        seen = self._warmed(_WARM_S)
        wanted = 1 if self._writes else round(_BLOCK_S / max(median(seen), 1e-6))
        self.repeat = min(max(wanted, 1), _MOST_CALLS)

    def move_to(self, connection: AutocommitConnection) -> None:
        """Go on in another session, and warm it. Raises as ``block``."""
        self._connection = connection
        self._warmed(_WARM_AGAIN_S)

    def _warmed(self, seconds: float) -> list[float]:
        """The first calls of a session, for so long at most."""
        begun, seen = self._clock(), []
        for turn in range(_WARM_CALLS):
            seen += self._timed(self._bound.of_turn(turn, 1))
            if self._clock() - begun > seconds:
                break
        return seen

    def block(self, number: int) -> list[float]:
        """The seconds of each call with the values of this round. Raises ``BenchmarkFailed``."""
        times = self._timed(self._bound.of_turn(number, self.repeat))
        self.calls += times
        return times

    def _timed(self, parameters: Sequence[Sequence[str]]) -> list[float]:
        times = []
        try:
            # psycopg forgets what is prepared with a rollback; what only reads may as well be committed.
            with self._connection.transaction(force_rollback=self._writes), RawCursor(self._connection) as cursor:
                if not self._writes:
                    self._connection.execute("set transaction read only")
                for name, value in self._settings.items():
                    self._connection.execute("select set_config(%s, %s, true)", (name, value))
                for given in parameters:
                    begun = self._clock()
                    cursor.execute(self._statement, given, prepare=True)
                    times.append(self._clock() - begun)
        except psycopg.Error as error:
            if error.sqlstate is None or self._connection.closed:
                raise
            raise failed(self._bound.name, error) from error
        return times


def failed(name: str, error: psycopg.Error) -> BenchmarkFailed:
    """What PostgreSQL refused, in its words."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        reason, hint = "it took longer than statement_timeout", "Raise benchmarks.statement_timeout, or make it faster."
    elif isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        reason, hint = "it writes, and is not declared as writing", "Declare writes: true: then it runs on a copy."
    else:
        reason = (error.diag.message_primary or str(error)).strip().rstrip(".")
        hint = "Correct the statement."
    return BenchmarkFailed(name=name, reason=reason, hint=hint)

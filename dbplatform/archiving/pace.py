"""How fast rows leave: the size of each batch, the pause after it, the waits for replicas and WAL, when to stop."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dbplatform.archiving.errors import ReplicaBehind
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.daily_window import Window
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.pressure import farthest_behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """How gently rows are deleted. After each batch: a pause of ``pause_s`` and ``rest`` times as long as it took.

    A batch that waits longer than ``lock_timeout_ms`` is rolled back, halved and tried again, up to ``tries`` times in
    a row; one that took longer than ``slow_s`` is followed by a half as large; after 20 that succeed in a row the batch
    is doubled, up to ``most_rows``. No batch begins while a replica has more than ``most_lag_bytes`` of WAL to replay;
    that is looked at once a second, up to ``lag_tries`` times. A batch for which other sessions have waited is followed
    by a half as large, too. The next one waits until the server has written no more than ``most_wal_per_s`` bytes of
    WAL a second since the last. Outside the ``window``, and once rows of ``budget_bytes`` have left, no batch begins.
    """

    batch_rows: int = 500
    most_rows: int = 10_000
    pause_s: float = 0.2
    rest: float = 1.0
    slow_s: float = 1.0
    lock_timeout_ms: int = 2000
    tries: int = 8
    most_lag_bytes: int = 50 * 1024 * 1024
    lag_tries: int = 600
    most_wal_per_s: int | None = None
    window: Window | None = None
    budget_bytes: int | None = None


GENTLE = Throttle()
#: Where nobody is disturbed: a batch costs two plans and a commit, which on a partitioned table is most of a small one.
BRISK = Throttle(batch_rows=10_000, pause_s=0.0, rest=0.0)
_SUCCESSES = 20


@dataclass(slots=True, kw_only=True)
class Pace:
    """The size of the next batch, from how the last ones went; one for all that a run does."""

    throttle: Throttle
    sleep: Callable[[float], None]
    clock: Callable[[], float]
    now: Callable[[], datetime]
    spent_bytes: int = 0
    stopped: str | None = None
    wal_at: tuple[float, int] | None = None
    """When WAL was looked at, and how far it was."""
    rows: int = field(init=False)
    successes: int = 0
    failures: int = 0

    def __post_init__(self) -> None:
        self.rows = self.throttle.batch_rows

    def stops(self) -> str | None:
        """Why no batch may begin now, and none later in this run; None: one may."""
        throttle = self.throttle
        if throttle.window is not None and not throttle.window.is_open(self.now()):
            self.stopped = f"it is outside the window {throttle.window}"
        elif throttle.budget_bytes is not None and self.spent_bytes >= throttle.budget_bytes:
            self.stopped = f"the budget of {throttle.budget_bytes:,} bytes is spent"
        return self.stopped

    def succeeded(self, seconds: float, *, bytes_: int = 0, waiting: int = 0) -> None:
        """A batch of so many bytes took so long, and so many sessions waited for it at its end."""
        self.successes, self.failures = self.successes + 1, 0
        self.spent_bytes += bytes_
        if seconds > self.throttle.slow_s or waiting:
            self.rows, self.successes = max(self.rows // 2, 1), 0
        elif self.successes == _SUCCESSES:
            self.rows, self.successes = min(self.rows * 2, self.throttle.most_rows), 0
        self.sleep(self.throttle.pause_s + self.throttle.rest * seconds)

    def failed(self) -> bool:
        """Whether to try again."""
        self.successes, self.failures = 0, self.failures + 1
        self.rows = max(self.rows // 2, 1)
        if self.failures >= self.throttle.tries:
            return False
        self.sleep(self.throttle.pause_s * 2**self.failures * random.uniform(0.8, 1.2))
        return True

    def wait_for_replicas(self, connection: AnyConnection, table: Relation) -> None:
        """Return once no replica is too far behind. Raises ``ReplicaBehind``."""
        tries = 0
        while (behind := farthest_behind(connection)) is not None and behind[1] > self.throttle.most_lag_bytes:
            if tries == self.throttle.lag_tries:
                raise ReplicaBehind(
                    replica=behind[0],
                    mb=behind[1] // 2**20,
                    table=str(table),
                    hint="Mend it, or raise max_replica_lag_mb where it is late on purpose; then run it again.",
                )
            tries += 1
            self.sleep(1.0)

    def wait_for_wal(self, connection: AnyConnection) -> None:
        """Return once the server has written no more WAL a second than it may, since this was last asked."""
        if self.throttle.most_wal_per_s is None:
            return
        now, written = self.clock(), wal_written(connection)
        if self.wal_at is not None:
            before, at = self.wal_at
            owed = (written - at) / self.throttle.most_wal_per_s - (now - before)
            if owed > 0:
                self.sleep(owed)
                now = self.clock()
        self.wal_at = now, written


def wal_written(connection: AnyConnection) -> int:
    """How many bytes of WAL the server has written in its life."""
    row = connection.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])

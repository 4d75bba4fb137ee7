"""Others come first: while a server has much to do, or somebody waits for a lock, nothing is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

from dbplatform.postgres.connection import AnyConnection

# What others do cannot be seen without the right to (pg_monitor): then nothing is waited for.
_OTHERS = """
    select count(*) filter (where wait_event_type is distinct from 'Lock'),
           count(*) filter (where wait_event_type = 'Lock')
    from pg_stat_activity
    where backend_type = 'client backend' and state = 'active' and pid <> pg_backend_pid()
      and application_name not like 'dbplatform bench%'
"""
_PAUSE_S = 0.5


class Courtesy:
    """Waits for others before a round, and remembers how long that was."""

    def __init__(
        self,
        busy: int,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._busy, self._sleep, self._clock = busy, sleep, clock
        self.waited_s = 0.0
        self.most_active = 0

    def wait(self, connection: AnyConnection, until: float) -> None:
        """Return once at most ``busy`` sessions of others are active and none waits for a lock, or at ``until``."""
        while True:
            row = connection.execute(_OTHERS).fetchone()
            assert row is not None
            active, waiting = row
            self.most_active = max(self.most_active, active)
            if (active <= self._busy and not waiting) or self._clock() >= until:
                return
            self._sleep(_PAUSE_S)
            self.waited_s += _PAUSE_S

    @property
    def notes(self) -> tuple[str, ...]:
        """What was seen of others, a sentence each."""
        found = []
        if self.waited_s:
            found.append(f"waited {self.waited_s:.1f} s for others")
        if self.most_active:
            found.append(f"up to {self.most_active} sessions of others were active meanwhile")
        return tuple(found)

"""How far work is, as PostgreSQL tells it, sampled only while there is work of ours and somebody watches.

Index builds, vacuums, analyses, COPY, CLUSTER and base backups (manual: "27.4. Progress Reporting"), whoever runs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import psycopg

from dbplatform.errors import PlatformError
from dbplatform.postgres.connection import Target, connect_to_listen
from dbplatform.web.push.hub import Hub

EACH_S: Final = 2.0
_WORK: Final = """
    select jsonb_agg(jsonb_build_object('pid', pid, 'what', what, 'on', coalesce(relation::regclass::text, ''),
                                        'phase', phase, 'done', done, 'total', nullif(total, 0)) order by pid)
    from (
        select pid, command, relid, phase, case when blocks_total > 0 then blocks_done else tuples_done end,
               case when blocks_total > 0 then blocks_total else tuples_total end
        from pg_stat_progress_create_index where datname = current_database()
        union all select pid, 'VACUUM', relid, phase, heap_blks_scanned, heap_blks_total
        from pg_stat_progress_vacuum where datname = current_database()
        union all select pid, 'ANALYZE', relid, phase, sample_blks_scanned, sample_blks_total
        from pg_stat_progress_analyze where datname = current_database()
        union all select pid, command, relid, phase, heap_blks_scanned, heap_blks_total
        from pg_stat_progress_cluster where datname = current_database()
        union all select pid, command, relid, type, bytes_processed, bytes_total
        from pg_stat_progress_copy where datname = current_database()
        union all select pid, 'BASE BACKUP', null, phase, backup_streamed, backup_total from pg_stat_progress_basebackup
    ) work(pid, what, relation, phase, done, total)
"""


class Progress:
    """Looks at the databases that are worked on, each by a session that lasts as long as the work."""

    def __init__(self, target_of: Callable[[str], Target | None], hub: Hub) -> None:
        self._target_of = target_of
        self._hub = hub
        self._running: frozenset[str] = frozenset()
        self._looking: dict[str, asyncio.Task[None]] = {}

    def now_running(self, databases: frozenset[str]) -> None:
        """These are worked on now, and no others."""
        self._running = databases
        for database in databases - self._looking.keys():
            task = asyncio.get_running_loop().create_task(self._look(database))
            self._looking[database] = task
            task.add_done_callback(partial(self._ended, database))

    def _ended(self, database: str, _: asyncio.Task[None]) -> None:
        del self._looking[database]

    async def _look(self, database: str) -> None:
        shown = False
        while database in self._running:
            if self._hub.is_watched(database):
                try:
                    target = await asyncio.to_thread(self._target_of, database)
                    if target is None:
                        return
                    async with connect_to_listen(target, work="progress") as connection:
                        while database in self._running and self._hub.is_watched(database):
                            row = await (await connection.execute(_WORK.encode())).fetchone()
                            work = (row[0] if row else None) or []
                            if work or shown:
                                self._hub.tell(database, {"type": "progress", "work": work})
                            shown = bool(work)
                            await asyncio.sleep(EACH_S)
                except (psycopg.Error, PlatformError, OSError):
                    pass  # The next look tries again; what is wrong with the database is told elsewhere.
            await asyncio.sleep(EACH_S)
        if shown:
            self._hub.tell(database, {"type": "progress", "work": []})

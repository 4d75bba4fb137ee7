"""Settings of the server against its machine, and the declared pools against its connections.

Only what evidence asks for: memory is advised where it is known and the data do not fit already; a ratio of nothing is
no reason. Source: PostgreSQL manual, "Resource Consumption", "Query Planning", "WAL Configuration".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbplatform.advice.actions import Action
from dbplatform.advice.model import Advice, Severity
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.words import manual, size_words
from dbplatform.postgres.catalog import may_read_file_settings
from dbplatform.postgres.connection import AnyConnection

_MB, _GB = 1 << 20, 1 << 30
#: So many checkpoints are needed to speak of a habit.
_LEAST_CHECKPOINTS = 10
_LEAST_TEMP_FILES = 100

_SETTINGS = """
    select name, setting,
           case unit when '8kB' then setting::float8 * 8192 when 'kB' then setting::float8 * 1024
                     when 'MB' then setting::float8 * 1048576 else nullif(setting, '')::float8 end as value
    from pg_settings
    where name in ('shared_buffers', 'work_mem', 'effective_cache_size', 'random_page_cost', 'max_wal_size',
                   'max_connections', 'autovacuum_vacuum_scale_factor', 'autovacuum_vacuum_threshold')
"""
_COUNTED = """
    select sum(pg_database_size(oid))::float8 as bytes,
           (select temp_files::float8 from pg_stat_database where datname = current_database()) as temp_files,
           (select temp_bytes::float8 from pg_stat_database where datname = current_database()) as temp_bytes
    from pg_database where datallowconn and has_database_privilege(oid, 'connect')
"""
_CHECKPOINTS = "select checkpoints_timed, checkpoints_req from pg_stat_bgwriter"
_CHECKPOINTS_17 = "select num_timed, num_requested from pg_stat_checkpointer"
_SET_BY_FILE = """
    select name, setting from pg_file_settings where sourcefile like '%postgresql.auto.conf' and applied is not false
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Settings in bytes and numbers, and the counters beside which they are judged."""

    settings: Mapping[str, float]
    set_by_file: Mapping[str, str]
    """What ALTER SYSTEM has set: an undo sets it again."""
    database_bytes: float
    """All databases of the server that the user may connect to."""
    temp_files: float
    temp_bytes: float
    timed: int
    requested: int


def read_server(connection: AnyConnection) -> Server:
    """Read it: four statements, no lock."""
    version = connection.info.server_version
    rows = connection.execute(_SETTINGS).fetchall()
    counted = connection.execute(_COUNTED).fetchone()
    checkpoints = connection.execute(_CHECKPOINTS_17 if version >= 170000 else _CHECKPOINTS).fetchone()
    assert counted is not None
    assert checkpoints is not None
    files = connection.execute(_SET_BY_FILE).fetchall() if may_read_file_settings(connection) else []
    return Server(
        settings={name: value for name, _, value in rows},
        set_by_file=dict(files),
        database_bytes=counted[0] or 0.0,
        temp_files=counted[1],
        temp_bytes=counted[2],
        timed=int(checkpoints[0]),
        requested=int(checkpoints[1]),
    )


def setting_advice(database: str, server: Server, policy: AdvicePolicy, memory: int | None) -> Iterator[Advice]:
    """What the settings should be. ``memory``: of the machine in bytes, none where it is not known. Pure."""
    now = server.settings
    if memory is not None:
        yield from _memory(database, server, memory)
    if policy.storage == "ssd" and now["random_page_cost"] > 2:
        yield _setting(
            database,
            server,
            "random_page_cost",
            "1.1",
            f"random_page_cost is {now['random_page_cost']:g}, as for a turning disk; the data lie on SSD, where "
            "reading at random is hardly dearer: the planner avoids indexes that would help.",
            {"storage": "ssd"},
            "runtime-config-query.html#GUC-RANDOM-PAGE-COST",
        )
    if server.requested >= _LEAST_CHECKPOINTS and server.requested > server.timed:
        wanted = min(2 * now["max_wal_size"], 64 * _GB)
        yield _setting(
            database,
            server,
            "max_wal_size",
            _size(wanted),
            f"{server.requested:,} checkpoints came because max_wal_size ({size_words(now['max_wal_size'])}) was full, "
            f"and {server.timed:,} by time: each makes the server write whole pages again.",
            {"requested": server.requested, "timed": server.timed},
            "wal-configuration.html",
        )


def _memory(database: str, server: Server, memory: int) -> Iterator[Advice]:
    now = server.settings
    buffers = now["shared_buffers"]
    known = {"memory": memory, "all databases": server.database_bytes}
    # A seldom read database, or a small one, gains nothing: it must at least not fit already.
    if buffers < 0.1 * memory and server.database_bytes > buffers:
        yield _setting(
            database,
            server,
            "shared_buffers",
            _size(memory / 4),
            f"shared_buffers has {size_words(buffers)} of the machine's {size_words(memory)}, and the databases "
            f"{size_words(server.database_bytes)}: a quarter of the memory is a good beginning. It needs a restart.",
            known,
            "runtime-config-resource.html#GUC-SHARED-BUFFERS",
        )
    elif buffers > 0.45 * memory:
        yield _setting(
            database,
            server,
            "shared_buffers",
            _size(memory / 4),
            f"shared_buffers has {size_words(buffers)} of the machine's {size_words(memory)}: too little is left for "
            "sessions and for the cache of the operating system. It needs a restart.",
            known,
            "runtime-config-resource.html#GUC-SHARED-BUFFERS",
            severity="warning",
        )
    if now["effective_cache_size"] < 0.25 * memory or now["effective_cache_size"] > memory:
        yield _setting(
            database,
            server,
            "effective_cache_size",
            _size(memory * 0.75),
            f"effective_cache_size tells the planner of {size_words(now['effective_cache_size'])}; the machine has "
            f"{size_words(memory)}.",
            known,
            "runtime-config-query.html#GUC-EFFECTIVE-CACHE-SIZE",
        )
    yield from _work_mem(database, server, memory)


def _work_mem(database: str, server: Server, memory: int) -> Iterator[Advice]:
    now, connections = server.settings, server.settings["max_connections"]
    wanted = min(max(memory / 4 / connections, 4 * _MB), 64 * _MB)
    document = "runtime-config-resource.html#GUC-WORK-MEM"
    if now["work_mem"] * connections > memory and now["work_mem"] > wanted:
        yield _setting(
            database,
            server,
            "work_mem",
            _size(wanted),
            f"{connections:,.0f} sessions may each take work_mem ({size_words(now['work_mem'])}) at least once: more "
            f"than the machine's {size_words(memory)}.",
            {"memory": memory, "max_connections": connections},
            document,
            severity="warning",
        )
    elif server.temp_files >= _LEAST_TEMP_FILES and wanted > 1.5 * now["work_mem"]:
        yield _setting(
            database,
            server,
            "work_mem",
            _size(wanted),
            f"{server.temp_files:,.0f} sorts and hashes went to temporary files ({size_words(server.temp_bytes)}) for "
            f"want of work_mem ({size_words(now['work_mem'])}); the machine's memory allows more.",
            {"temporary files": server.temp_files, "temporary bytes": server.temp_bytes, "memory": memory},
            document,
        )


def pools_advice(database: str, wanted: Mapping[str, int], places: int, *, matters: bool = True) -> Iterator[Advice]:
    """The declared pools that share a server, against the connections that it has for ordinary users. Pure.

    ``matters``: many people may come at once, as they do in production.
    """
    total = sum(wanted.values())
    if total <= places:
        return
    words = " + ".join(f"{count} of {name}" for name, count in sorted(wanted.items()))
    yield Advice(
        database=database,
        kind="pools",
        subject="max_connections",
        severity="warning" if matters else "info",
        reason=f"The declared pools of this server may open {total} connections ({words}), and it has {places}: the "
        "last callers will be refused.",
        evidence={"pools": dict(wanted), "connections": places},
        lock="none",
        cost="none",
        confidence="certain",
        document=manual("runtime-config-connection.html#GUC-MAX-CONNECTIONS"),
        words="Lower size and max_overflow in connection.pool, put a pooler in front, or raise max_connections.",
    )


def _setting(
    database: str,
    server: Server,
    name: str,
    value: str,
    reason: str,
    evidence: Mapping[str, Any],
    document: str,
    severity: Literal["warning", "info"] = "info",
) -> Advice:
    level: Severity = severity
    return Advice(
        database=database,
        kind="setting",
        subject=name,
        severity=level,
        reason=reason,
        evidence={"now": server.settings[name], **evidence},
        lock="none; the server reads its settings again",
        cost="memory, for a time" if name == "work_mem" else "none",
        confidence="estimated",
        document=manual(document),
        action=Action(verb="setting", name=name, values={name: value}),
        undo=Action(verb="setting", name=name, values={name: server.set_by_file.get(name)}),
    )


def _size(size: float) -> str:
    """A size as PostgreSQL writes it."""
    return f"{round(size / _MB)}MB"

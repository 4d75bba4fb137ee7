"""The settings of the embedded server, and the file that carries them.

They lie in ``conf.d/dbplatform.conf`` below the data directory, which ``postgresql.conf`` includes, and are written
again at each start. What belongs to a place and not to the data (port, address, log folder) goes on the server's
command line, so that a copy of the data directory can be started elsewhere.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from dbplatform.errors import UsageError
from dbplatform.postgres.embedded.account import Account
from dbplatform.postgres.embedded.processes import cluster_name

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_MB = 1024 * 1024
_SUMMARIZES_SINCE = 17
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def default_settings() -> dict[str, str]:
    """What every embedded server runs with; ``shared_buffers`` is an eighth of the memory, 128 MB to 1 GB."""
    shared_buffers_mb = min(max(memory_bytes() // 8 // _MB, 128), 1024)
    return {
        "shared_preload_libraries": "pg_stat_statements",
        "max_connections": "200",
        "shared_buffers": f"{shared_buffers_mb}MB",
        "wal_level": "replica",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "track_io_timing": "on",
        "track_commit_timestamp": "on",
        "password_encryption": "scram-sha-256",
        "log_line_prefix": "%m [%p] %q%u@%d %h %a ",
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_temp_files": "10MB",
        "log_min_duration_statement": "-1",
        "log_statement": "none",
    }


def place_settings(*, port: int, data_directory: Path, log_directory: Path) -> dict[str, str]:
    """Where this server listens and logs: on 127.0.0.1 only, a file of at most 10 MB at a time."""
    return {
        "cluster_name": cluster_name(data_directory),
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "logging_collector": "on",
        "log_destination": "stderr",
        "log_directory": str(log_directory),
        "log_filename": "postgresql-%Y%m%d-%H%M%S.log",
        "log_rotation_size": "10MB",
        "log_rotation_age": "1d",
    }


def archive_settings(archiver: Path, *, major: int) -> dict[str, str]:
    """How finished WAL goes to the program ``archiver``: a minute after it was begun at the latest.

    From 17 on the server keeps summaries of its WAL, which incremental backups need.
    """
    command = f"sh {shlex.quote(str(archiver))}".replace("%", "%%")
    settings = {
        "archive_mode": "on",
        "archive_command": f'{command} "%p" "%f"',
        "archive_timeout": "60s",
    }
    return settings | ({"summarize_wal": "on"} if major >= _SUMMARIZES_SINCE else {})


def write_settings(data_directory: Path, settings: Mapping[str, str], account: Account) -> None:
    """Write ``conf.d/dbplatform.conf`` anew, and include it from ``postgresql.conf`` when it is not yet."""
    folder = data_directory / "conf.d"
    account.make_folder(folder)
    lines = [f"{_checked(name)} = {_quoted(value)}" for name, value in settings.items()]
    head = "# Written at each start of the embedded server; ALTER SYSTEM overrides it.\n"
    fresh = folder / "dbplatform.conf.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(head + "\n".join(lines) + "\n")
    account.own(fresh)
    fresh.replace(folder / "dbplatform.conf")
    main = data_directory / "postgresql.conf"
    if "\ninclude_dir = 'conf.d'" not in main.read_text():
        with main.open("a") as file:
            file.write("\ninclude_dir = 'conf.d'\n")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a PostgreSQL setting.")
    return name


def _quoted(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise UsageError("The value of a PostgreSQL setting has one line.")
    return "'" + value.replace("'", "''") + "'"


def memory_bytes() -> int:
    """The machine's memory, or the container's when it is given less."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _CGROUP_LIMITS:
        try:
            limit = file.read_text().strip()
        except OSError:
            continue
        if limit.isdigit():
            memory = min(memory, int(limit))
    return memory

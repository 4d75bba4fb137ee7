"""The schema of a database without its rows, in a scratch database: by pg_dump and pg_restore, nothing of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from dbplatform.backups.errors import CloneFailed
from dbplatform.backups.loading import listed
from dbplatform.backups.programs import dump_program, restore_program
from dbplatform.backups.scratch import Scratch
from dbplatform.postgres.client_programs import ProgramFailed, login, run
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import Programs

LOCK_WAIT_S = 5
_UNFILLED = "select schemaname, matviewname from pg_matviews where not ispopulated"


def clone_schema(
    source: Target, scratch: Scratch, *, programs: Programs, policies: bool, with_rows: Sequence[Relation] = ()
) -> None:
    """Copy the schema, and the rows of the tables ``with_rows`` that exist, into the empty scratch database.

    ACCESS SHARE on all tables of ``source``, each waited for at most a few seconds. Owners, grants and user mappings
    are left out, and the policies unless ``policies``. Materialized views are filled from the empty tables. Raises
    ``CloneFailed``.
    """
    with connect(source, work="clones the schema") as connection:
        server_major = connection.info.server_version // 10000
        dumping = dump_program(programs, server_major=server_major)
        restoring = restore_program(programs, dump_major=dumping.major, server_major=server_major)
        from_source = login(source, work="clones the schema", server_of=connection)
        into_scratch = login(scratch.target, work=f"loads {scratch.token}", server_of=scratch.maintenance)
        with tempfile.TemporaryDirectory(prefix="dbplatform-clone-") as folder:
            dump = Path(folder) / "schema"
            command: list[str | Path] = [
                dumping.path("pg_dump"),
                "--format=custom",
                "--schema-only",
                "--no-owner",
                "--no-privileges",
                "--no-subscriptions",
                f"--lock-wait-timeout={LOCK_WAIT_S}s",
                "--no-password",
                f"--file={dump}",
                f"--dbname={from_source.dbname}",
            ]
            restore: list[str | Path] = [
                restoring.path("pg_restore"),
                "--no-owner",
                "--no-privileges",
                "--exit-on-error",
                "--no-password",
                f"--dbname={into_scratch.dbname}",
            ]
            try:
                run(command, login=from_source)
                with listed(restore, dump, policies=policies, user_mappings=False) as complete:
                    run([*complete, dump], login=into_scratch)
            except ProgramFailed as error:
                raise CloneFailed(
                    database=source.name,
                    reason=str(error),
                    hint="Mend what it says, or name a server whose user may do it: connection.scratch_url_env.",
                ) from error
        with connect(scratch.target, work="clones rows") as into:
            _fill_views(into)
            for relation in with_rows:
                exists = connection.execute("select to_regclass(%s)", (str(relation),)).fetchone()
                if exists is not None and exists[0] is not None:
                    table = sql.Identifier(relation.schema, relation.name)
                    with (
                        connection.cursor().copy(sql.SQL("copy {} to stdout").format(table)) as out,
                        into.cursor().copy(sql.SQL("copy {} from stdin").format(table)) as put,
                    ):
                        for piece in out:
                            put.write(piece)


def _fill_views(connection: AutocommitConnection) -> None:
    """Refresh the materialized views, those that others read first; one that fails without rows stays as it is."""
    left = connection.execute(_UNFILLED).fetchall()
    while left:
        for schema, name in left:
            with suppress(psycopg.Error):
                connection.execute(sql.SQL("refresh materialized view {}").format(sql.Identifier(schema, name)))
        before, left = left, connection.execute(_UNFILLED).fetchall()
        if len(left) == len(before):
            return

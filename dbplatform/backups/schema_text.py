"""The schema of a database as SQL: by pg_dump, nothing of our own."""

from __future__ import annotations

from collections.abc import Sequence

from dbplatform.backups.errors import SchemaNotDumped
from dbplatform.backups.programs import dump_program
from dbplatform.postgres.client_programs import ProgramFailed, login, run
from dbplatform.postgres.connection import SnapshotConnection, Target
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import Programs
from dbplatform.postgres.state import SCHEMA

LOCK_WAIT_S = 5


def schema_text(
    source: Target,
    moment: SnapshotConnection,
    *,
    programs: Programs,
    leave_out: Sequence[Relation] = (),
) -> str:
    """What ``pg_dump --schema-only`` writes of the moment that ``moment`` sees; owners and tablespaces left out.

    ACCESS SHARE on each table, waited for at most a few seconds; those of ``leave_out`` are not touched. The schema of
    the platform's own state is left out, too. Raises ``SchemaNotDumped`` and ``NoFittingProgram``.
    """
    program = dump_program(programs, server_major=moment.info.server_version // 10000)
    row = moment.execute("select pg_export_snapshot()").fetchone()
    assert row is not None
    access = login(source, work="reads the schema", server_of=moment)
    pieces: list[bytes] = []
    command = [
        str(program.path("pg_dump")),
        "--schema-only",
        "--no-owner",
        "--no-subscriptions",
        "--no-security-labels",
        "--no-tablespaces",
        "--encoding=UTF8",
        f"--snapshot={row[0]}",
        f"--lock-wait-timeout={LOCK_WAIT_S}s",
        f"--exclude-schema={SCHEMA}",
        *(f"--exclude-table={_pattern(relation)}" for relation in leave_out),
        "--no-password",
        f"--dbname={access.dbname}",
    ]
    try:
        run(command, login=access, output=pieces.append)
        return b"".join(pieces).decode()
    except ProgramFailed as error:
        reason = str(error)
    except UnicodeDecodeError as error:
        reason = f"its byte {error.start} is not UTF-8"
    raise SchemaNotDumped(
        database=source.name,
        reason=reason,
        hint="Mend what it says, or grant what is missing to the user in the URL; then run it again.",
    )


def _pattern(relation: Relation) -> str:
    """The name as pg_dump's patterns want it: in double quotes nothing has another meaning."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (relation.schema, relation.name))

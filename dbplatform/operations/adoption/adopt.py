"""Adopt a running database: look at it, propose, and write the declaration. The database itself is only read.

Catalog, statistics and the schema's dump are of one read-only snapshot, each statement of it short. Rows are read
behind it, in a snapshot for each table, so that a long look does not hold back vacuum: a table of at most
``WHOLE_ROWS`` as a whole, of a larger one a sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbplatform import progress
from dbplatform.backups.schema_text import schema_text
from dbplatform.declaration import scaffold
from dbplatform.declaration.project import Project
from dbplatform.migrations import dumped
from dbplatform.migrations.dumped import Baseline, as_baseline
from dbplatform.migrations.errors import LintCouldNotRun
from dbplatform.migrations.files import discover
from dbplatform.migrations.lint.engine import lint_files
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.operations.adoption import candidates as candidates_of
from dbplatform.operations.adoption.candidates import Candidate, candidates
from dbplatform.operations.adoption.limits import Limit, limits
from dbplatform.operations.adoption.survey import Survey, Table, refuse_unsafe, survey
from dbplatform.operations.adoption.writing import Proposals, declaration, unread, without_collisions
from dbplatform.operations.diagnosis.programs import extensions_of
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, Target, connect, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import find_programs
from dbplatform.quality.suggest.suggestions import CannotProfile, TableSuggestions, suggested

STATEMENT_TIMEOUT_MS = 20_000
LOCK_TIMEOUT_MS = 2_000
#: Larger tables are not read as a whole.
WHOLE_ROWS = 1_000_000

_FLYWAY = Relation("public", "flyway_schema_history")
_OWN_HISTORY = Relation("public", "dbplatform_schema_history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What would be written, and what it was written from."""

    name: str
    url_env: str
    folder: Path
    files: dict[str, str]
    survey: Survey
    baseline: Baseline
    candidates: tuple[Candidate, ...]
    limits: tuple[Limit, ...]
    checks: tuple[TableSuggestions, ...]
    notes: tuple[str, ...]

    def as_json(self, *, content: bool) -> dict[str, Any]:
        """The document of ``adopt --json``; with ``content`` the text of each file, too."""
        server = self.survey.server
        sampled = {one.table: one for one in self.checks}
        return {
            "database": self.name,
            "url_env": self.url_env,
            "folder": str(self.folder),
            "server": {"version": server.version, "user": server.user, "extensions": list(server.extensions)},
            "files": [{"path": path, **({"content": text} if content else {})} for path, text in self.files.items()],
            "tables": [_table_json(table, sampled.get(str(table.relation))) for table in self.survey.tables],
            "not_seen": [str(one) for one in unread(self.survey)],
            "candidates": [one.as_json() for one in self.candidates],
            "limits": [one.as_json() for one in self.limits],
            "baseline": {"statements": self.baseline.statements, "roles": list(self.baseline.roles)},
            "notes": list(self.notes),
        }


def plan_adoption(
    project: Project,
    target: Target,
    *,
    name: str,
    url_env: str,
    environment: str,
    from_rows: int = candidates_of.CANDIDATE_ROWS,
    whole_rows: int = WHOLE_ROWS,
) -> Adoption:
    """What ``write_adoption`` would write; the declaration has been loaded once, as any is.

    Only reads, under ACCESS SHARE: no statement runs longer than 20 s, or waits longer than 2 s for a lock; one that
    would is left out and told. Reports ``adopt <name>`` in tables. Raises ``NotPostgres``, ``ThroughPooler``,
    ``TooOld``, ``NothingToAdopt``, ``SchemaNotDumped``, ``WouldOverwrite``, and what a connection raises.
    """
    scaffold.refuse_declared(project, name)
    programs = find_programs()
    refuse_unsafe(target)
    with _reading(target) as connection:
        with snapshot(connection) as moment:
            found = survey(moment, target)
            proposals, doubts = candidates(moment, found, from_rows=from_rows)
            history = moment.execute("select to_regclass(%s) is not null", (str(_FLYWAY),)).fetchone()
            text = schema_text(target, moment, programs=programs, leave_out=found.hidden)
        checks, collisions = without_collisions(_suggestions(connection, found, name, whole_rows))
    measured, unmeasured = limits(target, database=name, now=found.server.now)
    baseline = as_baseline(text, database=name, user=found.server.user, hidden=frozenset(found.hidden))
    extensions = extensions_of(programs)
    here = programs.major == found.server.major and extensions is not None
    missing = tuple(one for one in found.server.extensions if here and one not in (extensions or ()))
    notes = (*found.notes, *_not_seen(found), *baseline.notes, *doubts, *collisions, *unmeasured)
    if programs.major != found.server.major:
        notes += (
            f"The embedded server is PostgreSQL {programs.major}: for trials and drills name one of "
            f"{found.server.major} by connection.scratch_url_env.",
        )
    files = {f"migrations/{dumped.NAME}": baseline.text}
    if baseline.settings is not None:
        files[f"migrations/{dumped.NAME}.conf"] = baseline.settings
    rules, unlinted = _lint_rules(files)
    notes += unlinted
    files["defs.yaml"] = declaration(
        Proposals(
            name=name,
            url_env=url_env,
            environment=environment,
            survey=found,
            history_table=_OWN_HISTORY if history is not None and history[0] else None,
            lint_rules=rules,
            candidates=proposals,
            limits=measured,
            checks=tuple(checks),
            missing_here=missing,
            notes=notes,
        )
    )
    scaffold.refuse_unloadable(name, files)
    return Adoption(
        name=name,
        url_env=url_env,
        folder=project.defs / name,
        files=files,
        survey=found,
        baseline=baseline,
        candidates=proposals,
        limits=measured,
        checks=tuple(checks),
        notes=notes,
    )


def write_adoption(project: Project, plan: Adoption) -> None:
    """Write the files, all or none. Raises ``WouldOverwrite`` and ``CannotWrite``."""
    scaffold.write_declaration(project, plan.name, plan.files)


@contextmanager
def _reading(target: Target) -> Iterator[AutocommitConnection]:
    """A session that cannot write, and neither runs nor waits for long."""
    with connect(
        target, work="adopt", lock_timeout_ms=LOCK_TIMEOUT_MS, statement_timeout_ms=STATEMENT_TIMEOUT_MS, jit=False
    ) as connection:
        connection.execute("set default_transaction_read_only = on")
        # While pg_dump reads the same snapshot, this session waits.
        connection.execute("set idle_in_transaction_session_timeout = 0")
        yield connection


def _suggestions(
    connection: AutocommitConnection, found: Survey, name: str, whole_rows: int
) -> Iterator[TableSuggestions]:
    tables = [table for table in found.tables if not table.secured]
    for done, table in enumerate(tables):
        progress.report(f"adopt {name}", done=done, total=len(tables), unit="tables")
        try:
            yield suggested(
                connection,
                table.relation,
                statement_timeout_ms=STATEMENT_TIMEOUT_MS,
                whole=table.rows <= whole_rows,
            )
        except (CannotProfile, TableMissing) as refused:
            if connection.closed or connection.broken:
                raise
            notes = (refused.message,)
            yield TableSuggestions(table=str(table.relation), rows_read=0, sampled=None, checks=(), notes=notes)
    progress.report(f"adopt {name}", done=len(tables), total=len(tables), unit="tables")


def _not_seen(found: Survey) -> Iterator[str]:
    if found.unreadable:
        names = ", ".join(map(str, found.unreadable[:10])) + (" ..." if len(found.unreadable) > 10 else "")
        yield (
            f"{len(found.unreadable)} tables could not be seen by {found.server.user}, and are in neither baseline nor "
            f"checks: {names}. grant select on them, and adopt again."
        )
    dependent = len(found.hidden) - len(set(found.hidden) & set(found.unreadable))
    if dependent:
        yield f"{dependent} views and children that are built on them are not in the baseline either."
    secured = [table.relation for table in found.tables if table.secured]
    if secured:
        yield f"Policies hide rows of {', '.join(map(str, secured))} from {found.server.user}: they are not checked."


def _lint_rules(files: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rules that the baseline breaks, which is as it is."""
    with tempfile.TemporaryDirectory(prefix="dbplatform-adopt-") as folder:
        for path, text in files.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        try:
            findings, _ = lint_files(discover(Path(folder) / "migrations"), MigrationPolicy(), None)
        except LintCouldNotRun as refused:
            return (), (f"The baseline was not linted: {refused.message}",)
    return tuple(sorted({finding.rule for finding in findings})), ()


def _table_json(table: Table, checked: TableSuggestions | None) -> dict[str, Any]:
    exact = checked is not None and checked.sampled is None and bool(checked.rows_read)
    return {
        "table": str(table.relation),
        "rows": checked.rows_read if exact and checked else table.rows,
        "rows_from": "read" if exact else table.source,
        "bytes": table.bytes,
        "checks": len(checked.checks) if checked else 0,
        "untried": len(checked.untried) if checked else 0,
        "notes": list(checked.notes) if checked else [],
    }

"""Lint of a declared database's migrations: which files, judged for which server, and what the declaration accepts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect, VariableNotSet
from dbplatform.migrations import engine
from dbplatform.migrations.errors import LintCouldNotRun
from dbplatform.migrations.files import Migration
from dbplatform.migrations.lint.engine import Finding, LintReport, lint_files
from dbplatform.migrations.lint.rules import UNUSED
from dbplatform.migrations.policy import AcceptedFinding, MigrationPolicy
from dbplatform.operations.platform import Platform
from dbplatform.operations.schema import policy_of
from dbplatform.postgres.connection import AnyConnection, connect

__all__ = ["Finding", "LintCouldNotRun", "LintReport", "fill", "lint"]


def lint(platform: Platform, declared: Declared, *, every: bool = False) -> LintReport:
    """Lint the pending files with the undo files of their versions, or every file. Only reads.

    For every file no server is needed: where it cannot be reached, the files are judged for the newest version, and the
    report says so. Raises ``LintCouldNotRun``, ``UnknownRule``, and what ``plan`` raises; a destructive
    statement is a finding.
    """
    policy, folders = policy_of(declared)
    if every:
        with _reachable(platform, declared) as connection:
            return _lint(platform, declared, engine.discover(folders), policy, connection, every=True)
    files = engine.Files.of(folders)
    with connect(platform.target(declared), work="migrate lint") as connection:
        pending = [migration for migration, _ in engine.compare(connection, files, policy, target=None).pending]
        versions = {migration.version for migration in pending if migration.kind == "versioned"}
        undo = [migration for version, migration in files.undo.items() if version in versions]
        return _lint(platform, declared, [*pending, *undo, *files.callbacks_of("Migrate")], policy, connection)


def fill(platform: Platform, declared: Declared, document: dict[str, Any]) -> str | None:
    """Put the findings of each pending file into a plan's document; where lint could not run: null, and why."""
    try:
        report = lint(platform, declared)
    except LintCouldNotRun as error:
        for migration in document["migrations"]:
            migration["findings"] = None
        return str(error)
    for migration in document["migrations"]:
        migration["findings"] = [finding.as_json() for finding in report.of(migration["script"])]
    return None


def _lint(
    platform: Platform,
    declared: Declared,
    files: list[Migration],
    policy: MigrationPolicy,
    connection: AnyConnection | None,
    *,
    every: bool = False,
) -> LintReport:
    shown = platform.project.shown
    with declared.written_at("migrations", "lint", "accept"):
        findings, idle = lint_files(files, policy, connection, shown=shown)
    if every:
        findings += [_idle(declared, accepted) for accepted in idle]
    return LintReport(
        database=declared.name,
        server_major=connection.info.server_version // 10000 if connection is not None else None,
        files=len(files),
        findings=tuple(findings),
    )


@contextmanager
def _reachable(platform: Platform, declared: Declared) -> Iterator[AnyConnection | None]:
    """A connection where the database is there and answers; none where it would have to be started or created."""
    with ExitStack() as stack:
        connection = None
        with suppress(CannotConnect, VariableNotSet):
            target = platform.existing_target(declared)
            if target is not None:
                connection = stack.enter_context(connect(target, work="migrate lint"))
        yield connection


def _idle(declared: Declared, accepted: AcceptedFinding) -> Finding:
    """The finding that an entry of the declaration accepts nothing."""
    assert declared.database.migrations is not None
    index = next(n for n, entry in enumerate(declared.database.migrations.lint.accept) if entry is accepted)
    return Finding(
        file=str(declared.document.shown),
        line=declared.document.line_of(("attributes", "migrations", "lint", "accept", index)),
        column=1,
        rule=UNUSED,
        level="warning",
        message=f"The declaration accepts nothing: {', '.join(accepted.rules)} is not found in {accepted.script}.",
        help="Remove it, or correct its script.",
    )

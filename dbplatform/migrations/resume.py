"""A file that runs without a transaction: statement by statement, so that a killed run is taken up where it stopped.

A statement that can have a transaction commits together with its mark, so that it never runs twice. One that cannot,
such as CREATE INDEX CONCURRENTLY, is looked for in the catalog; what leaves no trace there stops with ``InDoubt``.
SET and RESET change the session alone, and run again in every session.
"""

from __future__ import annotations

import psycopg

from dbplatform import progress
from dbplatform.migrations import classify, concurrent
from dbplatform.migrations.errors import InDoubt
from dbplatform.migrations.marks import Mark, Marks
from dbplatform.migrations.plan import PendingMigration
from dbplatform.migrations.reconcile import Trace, trace_of
from dbplatform.migrations.running import Running
from dbplatform.migrations.session import waiting
from dbplatform.migrations.statements import Statement
from dbplatform.postgres.connection import AutocommitConnection

#: For the marks and the row, whatever role the script has taken; it has it again behind the transaction.
_OWN_USER = "set local session authorization default; set local role none"


def by_itself(running: Running) -> None:
    """Run the statements of a file that are not done yet, then record the file.

    A statement that cannot have a transaction waits for locks without limit, because it holds none that others wait
    for. Reports ``<script>`` in statements, and ``<script>: done`` when one without a transaction has ended but is
    not marked yet. Raises ``InDoubt``, ``FileChangedHalfWay``, ``IndexInTheWay``, and PostgreSQL's errors.
    """
    try:
        _statement_by_statement(running)
    except BaseException:
        running.session.rollback()
        raise


def _statement_by_statement(running: Running) -> None:
    migration, connection = running.migration, running.connection
    connection.execute("select set_config('statement_timeout', '0', false)")
    marks = Marks(connection, running.policy.history_table, migration) if _needs_marks(migration) else None
    running.marked = marks is not None
    mark = marks.read() if marks is not None else Mark()
    if not running.finished:
        running.found_done = mark.done > 0
    # Callbacks leave no marks: a file that is taken up again has them again, as the session is a new one.
    for statement in running.statements_of(*migration.before):
        if classify.session_only(statement):
            running.execute(statement)
        else:
            _run(running, None, 0, statement, None)
    total = len(migration.statements)
    for number, statement in enumerate(migration.statements, start=1):
        progress.report(migration.script, done=number - 1, total=total, unit="statements")
        if classify.session_only(statement):
            running.execute(statement)
        elif number > mark.done:
            announced = mark.announced and number == _next(migration, mark)
            _run(running, marks, number, statement, mark if announced else None)
    progress.report(migration.script, done=total, total=total, unit="statements")
    running.statement = None
    connection.execute("begin")
    if migration.after and not running.sets_lock_timeout:
        connection.execute(waiting(running.lock_timeout_ms))
    for statement in running.statements_of(*migration.after):
        running.execute(statement)
    if marks is not None:
        connection.execute(_OWN_USER)
        marks.clear()
    running.session.commit(running.row())


def _next(migration: PendingMigration, mark: Mark) -> int:
    """The number of the statement that was announced: SET and RESET before it are not marked by themselves."""
    numbers = range(mark.done + 1, len(migration.statements) + 1)
    return next(n for n in numbers if not classify.session_only(migration.statements[n - 1]))


def _run(running: Running, marks: Marks | None, number: int, statement: Statement, announced: Mark | None) -> None:
    connection, migration = running.connection, running.migration
    running.statement = statement
    own = running.sets_lock_timeout
    if _has_transaction(statement):
        if running.observer is not None:
            running.observer.begin()
        with connection.transaction():
            if not own:
                connection.execute(waiting(running.lock_timeout_ms))
            running.execute(statement)
            _mark(connection, marks, number)
        return
    if not own:
        connection.execute("select set_config('lock_timeout', '0', false)")
    if _did_its_work(running, number, statement, announced):
        running.found_done = True
    elif not concurrent.prepare(connection, statement, running.file.path):
        trace = trace_of(statement)
        if marks is not None and trace is not None:
            _announce(connection, marks, number, trace)
        try:
            running.execute(statement)
        except psycopg.Error as error:
            if error.diag.statement_position and not connection.closed:
                # The server did not understand it, so that nothing of it ran.
                with connection.transaction():
                    _mark(connection, marks, number - 1)
            raise
        progress.report(f"{migration.script}: done", done=number, total=len(migration.statements), unit="statements")
    else:
        running.found_done = True
    with connection.transaction():
        _mark(connection, marks, number)


def _did_its_work(running: Running, number: int, statement: Statement, announced: Mark | None) -> bool:
    """What the catalog tells of a statement that an earlier run had announced."""
    trace = trace_of(statement)
    if announced is None or trace is None:
        return False
    verdict = trace.judge(running.connection, announced.before or {})
    if verdict == "in doubt":
        migration = running.migration
        raise InDoubt(
            script=migration.script,
            number=number,
            total=len(migration.statements),
            statement=statement.summary,
            hint="See whether it did. If so: dbplatform migrate repair DATABASE --did "
            f"{migration.script}. If it is to run again: --again {migration.script}.",
            file=migration.path,
            line=statement.line,
        )
    return verdict == "done"


def _announce(connection: AutocommitConnection, marks: Marks, number: int, trace: Trace) -> None:
    before = trace.look(connection)
    with connection.transaction():
        connection.execute(_OWN_USER)
        marks.announce(number, before)


def _mark(connection: AutocommitConnection, marks: Marks | None, number: int) -> None:
    if marks is not None:
        connection.execute(_OWN_USER)
        marks.done(number)


def _has_transaction(statement: Statement) -> bool:
    return classify.needs_no_transaction(statement) is None and not classify.may_commit(statement)


def _needs_marks(migration: PendingMigration) -> bool:
    """One statement that shows in the catalog by itself, or may simply run again, needs no table for its marks.

    A callback runs each time from its beginning.
    """
    if migration.migration.kind == "callback":
        return False
    lasting = [s for s in migration.statements if not classify.session_only(s)]
    return len(lasting) > 1 or any(trace_of(s) is not None for s in lasting if not _has_transaction(s))

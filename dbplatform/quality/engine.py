"""Checks of one table from beginning to end: run them, and keep what they found."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.quality import record
from dbplatform.quality.by_partition import ByPartition
from dbplatform.quality.examination import examined
from dbplatform.quality.history import remembering
from dbplatform.quality.masks import Masks
from dbplatform.quality.policy import FAILED_ROWS_KEPT, TablePolicy
from dbplatform.quality.quarantine import separation
from dbplatform.quality.results import TableResult


def run_table(
    connection: AutocommitConnection,
    policy: TablePolicy,
    *,
    only: Collection[str] | None = None,
    statement_timeout_ms: int | None = None,
    stream: bool | None = None,
    masks: Masks | None = None,
    dry_run: bool = False,
) -> TableResult:
    """Run the checks of a table, or those named in ``only``, keep nothing and move no row.

    With ``dry_run`` the messages say which rows would be moved aside, and why others would not.

    Transaction, locks and errors: see ``examination.examined``.
    """
    with examined(
        connection, policy, only=only, statement_timeout_ms=statement_timeout_ms, stream=stream, masks=masks
    ) as examination:
        return separation.planned(examination) if dry_run else examination.result


def check_table(
    target: Target,
    ledger: Ledger,
    database: str,
    run_id: str,
    policy: TablePolicy,
    only: Collection[str] | None = None,
    *,
    statement_timeout_ms: int | None = None,
    masks: Masks | None = None,
    bound: int = FAILED_ROWS_KEPT,
    full: bool = False,
) -> TableResult:
    """Run the checks of a table and keep results and failing rows in the ledger, as part of the run ``run_id``.

    The failing rows are read in the snapshot in which they were counted. Can be run again in the same run: what the
    ledger has of these checks is replaced. Starts the run where nobody has. ``masks`` are those of the whole database,
    none: those of this table; ``bound`` is how many rows of a check are kept where it declares nothing. Rows of checks
    that declare a quarantine are moved when the results are recorded and the snapshot has ended: see
    ``quarantine.move``. Where the policy says so, partitions that have not changed since an earlier run are not read
    again, unless ``full``.
    """
    record.start_run(ledger, database, run_id)
    remembered = remembering(ledger, database, policy, run_id=run_id)
    with ExitStack() as moves:
        with (
            connect(target, work=f"check {policy.table.words}") as connection,
            examined(
                connection,
                remembered,
                only=only,
                statement_timeout_ms=statement_timeout_ms,
                masks=masks,
                by_partition=partitions_of(ledger, database, policy, full=full),
            ) as examination,
        ):
            result = record.record_table(ledger, run_id, examination, replace_all=only is None, bound=bound)
            work = separation.prepared(moves, examination)
        return separation.done(target, ledger, run_id, result, work, masks=bool(examination.masks))


def partitions_of(ledger: Ledger, database: str, policy: TablePolicy, *, full: bool = False) -> ByPartition | None:
    """What answers the checks of a table partition by partition, where that is declared."""
    if policy.unchanged is None:
        return None
    from dbplatform.quality.unchanged.partitions import Partitions

    return Partitions(ledger, database, policy, full=full)

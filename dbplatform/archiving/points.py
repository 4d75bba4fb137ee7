"""The points of an archive's life that its progress names, in their order. Drills kill the process at each of them.

``archive <name> <point>``: ``begin`` (nothing is written yet), ``export`` (rows that are in the partial file),
``write`` (the partial file is complete), ``rename`` (the file has its name, the ledger does not know it), ``record``
(the ledger lists it), ``read back`` (rows), ``verify`` (it was equal), ``children`` (what refers to a batch is deleted,
its own rows are not), ``batch`` (rows of a batch are deleted, not yet committed), ``delete`` (rows dealt with,
committed), ``finish`` (all of them, the ledger does not know), ``done``. ``restore`` (rows loaded), ``insert`` (rows
are in the table, not yet committed), ``return`` (committed, the ledger does not know), ``restored``. What concerns one
file of rows that leave along is told of ``archive <name>/<table>``. ``decided`` (rows are on the replay list, nothing
is erased yet), ``erased`` (they have left the table), ``complete`` (an archive without them has its name, the ledger
does not know it), ``rewritten`` (the ledger lists it, the old one is still there), ``removed``.
"""

from __future__ import annotations

from typing import Literal

from dbplatform import progress

Point = Literal[
    "begin",
    "export",
    "write",
    "rename",
    "record",
    "read back",
    "verify",
    "children",
    "batch",
    "delete",
    "finish",
    "done",
    "restore",
    "insert",
    "return",
    "restored",
    "decided",
    "erased",
    "complete",
    "rewritten",
    "removed",
]


def reached(name: str, point: Point, done: int, total: int | None = None) -> None:
    """Tell whoever listens that the archive ``name`` has come to ``point``."""
    progress.report(f"archive {name} {point}", done=done, total=total, unit="rows")

"""Is the restored database what was dumped? Counts and hashes read again, beside those of the manifest."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from dbplatform import progress
from dbplatform.backups.contents import everything, read_content, ready_to_read
from dbplatform.backups.manifest import Manifest, TableContent
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProof:
    """One table, restored and expected; none where it is not there."""

    table: str
    rows: int | None
    expected_rows: int | None
    hash: str | None
    expected_hash: str | None

    @property
    def match(self) -> bool:
        """Whether the same rows are there, and no others."""
        return (self.rows, self.hash) == (self.expected_rows, self.expected_hash)

    @property
    def difference(self) -> str | None:
        """What does not match, in words."""
        if self.match:
            return None
        if self.rows is None:
            return f"{self.table} is missing in the restored database"
        if self.expected_rows is None:
            return f"{self.table} was not in the backup"
        if self.rows != self.expected_rows:
            return f"{self.table} has {self.rows} rows, not {self.expected_rows}"
        return f"{self.table} has {self.rows} rows as expected, with other content"

    def as_json(self) -> dict[str, Any]:
        """One of ``tables`` of the contract's ``drill``."""
        return {
            "table": self.table,
            "rows": self.rows,
            "expected_rows": self.expected_rows,
            "hash": self.hash,
            "expected_hash": self.expected_hash,
            "match": self.match,
        }


def compare(target: Target, manifest: Manifest, *, jobs: int = 1, task: str) -> tuple[TableProof, ...]:
    """Read every table of ``target`` and set it beside the manifest, in the order of the names.

    ``jobs`` tables at a time, the largest first. Tables that are on one side only are there too, as mismatches. Takes
    ACCESS SHARE on each table while it is read.
    """
    found = _read(target, manifest, jobs, task)
    expected = {content.table: content for content in manifest.tables}
    return tuple(
        TableProof(
            table=name,
            rows=found[name].rows if name in found else None,
            expected_rows=expected[name].rows if name in expected else None,
            hash=found[name].hash if name in found else None,
            expected_hash=expected[name].hash if name in expected else None,
        )
        for name in sorted(found.keys() | expected.keys())
    )


def _read(target: Target, manifest: Manifest, jobs: int, task: str) -> dict[str, TableContent]:
    """What every table holds now."""
    rows = {content.table: content.rows for content in manifest.tables}
    with connect(target, work="compares with a backup") as connection:
        relations = sorted(everything(connection), key=lambda relation: -rows.get(str(relation), 0))
    waiting: SimpleQueue[Relation] = SimpleQueue()
    for relation in relations:
        waiting.put(relation)
    found: dict[str, TableContent] = {}

    def work() -> None:
        try:
            with connect(target, work="compares with a backup") as connection:
                ready_to_read(connection)
                while True:
                    content = read_content(connection, waiting.get_nowait())
                    found[content.table] = content
                    progress.report(task, done=len(found), total=len(relations), unit="tables")
        except Empty:
            return
        except BaseException:
            # The others come to an end soon.
            while not waiting.empty():
                with suppress(Empty):
                    waiting.get_nowait()
            raise

    progress.report(task, done=0, total=len(relations), unit="tables")
    with ThreadPoolExecutor(jobs, thread_name_prefix="backup-compare") as pool:
        for future in [pool.submit(contextvars.copy_context().run, work) for _ in range(jobs)]:
            future.result()
    return found

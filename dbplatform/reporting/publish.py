"""The report of a declared database's run: finished, written, and where to read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbplatform.addresses import dagster_address, service_address
from dbplatform.declaration.loading import Declared
from dbplatform.operations import checks
from dbplatform.operations.platform import Platform
from dbplatform.reporting.evidence import RunEvidence, load_evidence
from dbplatform.reporting.store import write_report


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A report that was written, and what it says in numbers."""

    path: Path
    url: str
    """Where the status service shows it, while it runs."""
    run: RunEvidence

    @property
    def failed_rows(self) -> int:
        return sum(check.failed_rows or 0 for check in self.run.checks if check.status == "failed")

    @property
    def stops(self) -> str | None:
        """Why work that builds on this data must stop, if so: a check errored, or a blocking one failed."""
        errored = [c for c in self.run.checks if c.status == "errored"]
        if errored:
            names = ", ".join(f"{c.table} {c.name}" for c in errored[:3])
            return f"{len(errored)} of its checks could not run ({names})"
        blocking = [c for c in self.run.checks if c.blocks]
        if blocking:
            names = ", ".join(f"{c.table} {c.name}" for c in blocking[:3])
            return f"{len(blocking)} blocking checks failed ({names})"
        return None


def publish(platform: Platform, declared: Declared, run_id: str, *, in_dagster: bool) -> Published:
    """Close the run of checks and write its report. Raises ``UnknownRun`` where no check ran in it."""
    checks.finish_run(platform, declared, run_id)
    folder = platform.home.reports
    link = f"{dagster_address()}/runs/{run_id}" if in_dagster else None
    written = write_report(platform.ledger, declared.name, run_id, folder=folder, dagster_run_url=link)
    return Published(
        path=written.path,
        url=f"{service_address()}/reports/run/{run_id}",
        run=load_evidence(platform.ledger, run_id, database=declared.name),
    )

"""The report of a declared database's run: finished, written, and where to read it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from dbplatform import machines
from dbplatform.addresses import dagster_address, service_address
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.operations import checks, surroundings
from dbplatform.operations.platform import Platform
from dbplatform.reporting import retention
from dbplatform.reporting.evidence import RunEvidence, load_evidence
from dbplatform.reporting.store import FORMS, report_of, write_report
from dbplatform.storage.place import S3_SCHEME

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A report that was written, and what it says in numbers."""

    location: str
    """An absolute path, or ``s3://bucket/key``: of the HTML."""
    forms: dict[str, str]
    """The same for each form."""
    url: str
    """Where the status service shows it, while it runs."""
    review_url: str
    """Where the status service takes a review of it."""
    run: RunEvidence
    problem: str | None = None
    """Why reports that are too old were not removed, where they were not."""

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
    """Close the run of checks, write its report, and remove those that are too old.

    Raises ``UnknownRun`` where no check ran in it. What keeps old reports from being removed is told, not raised: the
    next run tries again.
    """
    missing = surroundings.keep(platform, declared, run_id)
    if missing is not None:
        _log.warning("%s: settings and migrations were not kept with run %s: %s", declared.name, run_id, missing)
    checks.finish_run(platform, declared, run_id)
    write_report(
        platform.ledger,
        declared.name,
        run_id,
        folder=platform.home.reports,
        destination=destination_of(platform, declared),
        dagster_run_url=f"{dagster_address()}/runs/{run_id}" if in_dagster else None,
        review_url=review_address(run_id),
        owners=declared.database.owners,
    )
    return published(platform, run_id, problem=_prune(platform, declared))


def published(platform: Platform, run_id: str, *, problem: str | None = None) -> Published:
    """The report of a run as it was written. Raises ``ReportNotFound``."""
    entry = report_of(platform.ledger, None, run_id)
    forms = {form: entry.kept_at(platform.home.reports, form) for form in FORMS if form in entry.forms}
    return Published(
        location=forms["html"],
        forms=forms,
        url=f"{service_address()}/reports/run/{run_id}",
        review_url=review_address(run_id),
        run=load_evidence(platform.ledger, run_id),
        problem=problem,
    )


def destination_of(platform: Platform, declared: Declared) -> str | None:
    """The declared bucket, or folder as seen from the project; none for the folder of reports in its home.

    Raises ``OnOneMachine``.
    """
    policy = declared.database.reports
    declared_as = policy.destination if policy is not None else None
    if declared_as is not None and declared_as.startswith(S3_SCHEME):
        return declared_as
    folder = str((platform.project.root / declared_as).absolute()) if declared_as is not None else None
    hint = "Declare a bucket: reports: {destination: s3://bucket/prefix}."
    machines.refuse_on_one(f"The reports of {declared.name}", folder or platform.home.reports, hint=hint)
    return folder


def _prune(platform: Platform, declared: Declared) -> str | None:
    policy = declared.database.reports
    if policy is None or policy.retain is None:
        return None
    now = datetime.now(UTC)
    try:
        retention.apply_prune(platform, declared, retention.plan_prune(platform, declared, now=now), now=now)
    except PlatformError as error:
        _log.warning("%s: old reports were not removed: %s", declared.name, error)
        return str(error)
    return None


def review_address(run_id: str) -> str:
    """Where the status service takes a review of the report of a run."""
    return f"{service_address()}/reviews/{quote(run_id, safe='')}"

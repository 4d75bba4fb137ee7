"""What can be changed over HTTP: alerts are acknowledged and silenced, reports reviewed, statements explained.

Nothing here changes a managed database. Whoever asks needs the scope ``act`` (``access``), and has to mean it
(``writing``); every act is in the audit log.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dbplatform.alerting import record as alerts
from dbplatform.alerting import silences
from dbplatform.ledger.acting import note
from dbplatform.monitoring.texts import without_values
from dbplatform.operations import reviews
from dbplatform.postgres.words import Interval
from dbplatform.web import documents as d
from dbplatform.web.access import Caller
from dbplatform.web.of_database import Name
from dbplatform.web.reading import Reading, alert_document, silence_document
from dbplatform.web.writing import require_program

_GREATEST_ID = 2**63 - 1
_QUERY_CHARACTERS = 20_000

Id = Annotated[int, Path(ge=1, le=_GREATEST_ID)]
#: What PostgreSQL can hold: any character but NUL.
_HOLDABLE = r"^[^\x00]*$"
Words = Annotated[str, Field(min_length=1, max_length=1_000, pattern=_HOLDABLE)]
WhoActs = Annotated[str | None, Field(max_length=200, pattern=_HOLDABLE, description="Used where nobody is known.")]


class Given(BaseModel):
    """The base of what a program sends."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Acknowledged(Given):
    """Somebody has seen the alert."""

    by: WhoActs = None


def _length(words: str) -> str:
    try:
        seconds = Interval.parse(words).timedelta.total_seconds()
    except OverflowError:
        raise ValueError("it is too long") from None
    if seconds <= 0:
        raise ValueError("it is no time at all")
    return words


class Silenced(Given):
    """Nobody is told for a time."""

    database: Annotated[str, Field(min_length=1, max_length=200, pattern=_HOLDABLE)] | None = Field(
        default=None, description="Left out: every database."
    )
    metric: Annotated[str, Field(min_length=1, max_length=500, pattern=_HOLDABLE)] | None = Field(
        default=None, description="A metric, check or job, as alerts name it; left out: all."
    )
    length: Annotated[str, Field(max_length=40), AfterValidator(_length)] = Field(
        default="2 hours", description="In PostgreSQL's words: 30 min, 2h, 3 days; at most 31 days."
    )
    reason: Words
    by: WhoActs = None


class Ended(Given):
    """The silence is over."""


class Reviewed(Given):
    """Somebody has read the report."""

    by: WhoActs = None
    comment: str
    and_earlier: bool = False


class Asked(Given):
    """A statement whose plan is asked for, or the number of one that slow-queries shows."""

    sql: Annotated[str, Field(min_length=1, max_length=_QUERY_CHARACTERS, pattern=_HOLDABLE)]


def router(reading: Reading) -> APIRouter:
    """``POST`` of the API. Each asks for JSON from a program, or from a page of this service."""
    ledger = reading.ledger
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(require_program)])

    @routes.post("/alerts/{alert_id}/acknowledgement", response_model=d.OneAlert)
    def acknowledge(alert_id: Id, given: Acknowledged, request: Request) -> d.OneAlert:
        """Note that somebody has seen an open alert; the first word counts, a second one changes nothing."""
        by = _caller(request).named(given.by)
        return d.OneAlert(alert=alert_document(alerts.acknowledge(ledger, alert_id, by=by, now=datetime.now(UTC))))

    @routes.post("/silences", response_model=d.OneSilence, status_code=201)
    def silence(given: Silenced, request: Request) -> d.OneSilence:
        """Tell nobody of what fires for a time; what fires when it ends is told then."""
        if given.database is not None:
            reading.require(given.database)
        made = silences.silence(
            ledger,
            database=given.database,
            metric=given.metric,
            length=Interval.parse(given.length).timedelta,
            reason=given.reason,
            by=_caller(request).named(given.by),
            now=datetime.now(UTC),
        )
        return d.OneSilence(silence=silence_document(made))

    @routes.post("/silences/{silence_id}/end", response_model=d.OneSilence)
    def end(silence_id: Id, given: Ended) -> d.OneSilence:
        """End a silence before its time; what still fires is told within a minute."""
        ended = silences.end_silence(ledger, silence_id, now=datetime.now(UTC))
        return d.OneSilence(silence=silence_document(ended))

    @routes.post("/reports/{run_id}/reviews", response_model=d.ReviewsMade, status_code=201)
    def review(run_id: str, given: Reviewed, request: Request) -> dict[str, Any]:
        """Note that a report was reviewed; with ``and_earlier`` every older failing one that waits, too."""
        by = _caller(request).signed(given.by)
        made = reviews.review(
            ledger, run_id, by=by, comment=given.comment, way="service", and_earlier=given.and_earlier
        )
        return {"reviews": [one.as_json() for one in made]}

    @routes.post("/databases/{name}/explain", response_model=d.PlanDocument)
    def explain(name: Name, given: Asked) -> d.PlanDocument:
        """The plan of one statement: nothing runs. The one thing that is asked of a managed database.

        In a read-only transaction with a reader's rights, for five seconds at most, two at a time.
        """
        reading.require(name)
        with ledger.session() as session:
            note(session, "explain", without_values(given.sql)[:300], database=name)
        plan = reading.location.explain(name, given.sql)
        return d.PlanDocument.model_validate({**plan.as_json(), "text": plan.text})

    return routes


def _caller(request: Request) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller

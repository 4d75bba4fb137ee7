"""The page on which a person says that they have read a report, and the history of what was said."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import reviews
from dbplatform.reporting.evidence import load_evidence
from dbplatform.reporting.store import report_of
from dbplatform.reporting.words import headline
from dbplatform.web.access import Caller
from dbplatform.web.forms import Form
from dbplatform.web.pages import FORM_HEADERS, render
from dbplatform.web.writing import Writing


def router(ledger: Ledger, writing: Writing, *, dagster_url: str | None) -> APIRouter:
    """``/reviews/<run id>``: the form and the history (GET), one more review (POST)."""
    routes = APIRouter(include_in_schema=False)
    shown = partial(_page, ledger, writing, dagster_url)

    @routes.get("/reviews/{run_id}")
    def page(run_id: str, request: Request) -> Response:
        """What the report says, who has reviewed it, and the form."""
        return HTMLResponse(shown(request, run_id), headers=FORM_HEADERS)

    @routes.post("/reviews/{run_id}")
    def note(run_id: str, request: Request, given: Form) -> Response:
        """Note the review and show the page again."""
        writing.require_form(request, run_id, word=given.get("word", ""))
        caller: Caller = request.state.caller
        by, comment, earlier = caller.signed(given.get("by")), given.get("comment", ""), "and_earlier" in given
        try:
            reviews.review(ledger, run_id, by=by, comment=comment, way="service", and_earlier=earlier)
        except reviews.NoReview as missing:
            again = shown(request, run_id, by=by, comment=comment, problem=str(missing))
            return HTMLResponse(again, status_code=422, headers=FORM_HEADERS)
        return RedirectResponse(f"/reviews/{quote(run_id, safe='')}", status_code=303)

    return routes


def _page(
    ledger: Ledger,
    writing: Writing,
    dagster_url: str | None,
    request: Request,
    run_id: str,
    *,
    by: str | None = None,
    comment: str = "",
    problem: str | None = None,
) -> str:
    caller: Caller = request.state.caller
    entry = report_of(ledger, None, run_id)
    return render(
        "review.html.j2",
        entry=entry,
        dagster_url=dagster_url,
        headline=headline(load_evidence(ledger, run_id)),
        reviews=reviews.reviews_of(ledger, [run_id]).get(run_id, []),
        earlier=[one for one in reviews.waiting(ledger, entry.database) if one.started_at < entry.started_at],
        word=writing.word(run_id),
        may_act=caller.may_act,
        caller=caller,
        known=caller.known,
        by=by if by is not None else caller.name if caller.known else "",
        comment=comment,
        problem=problem,
    )

"""The page on which a person says that they have read a report, and the history of what was said."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import reviews
from dbplatform.reporting.evidence import load_evidence
from dbplatform.reporting.store import report_of
from dbplatform.reporting.words import headline
from dbplatform.web.answers import BadRequest
from dbplatform.web.pages import CONTENT_SECURITY, render
from dbplatform.web.writing import Writing

_MOST_BYTES = 64 * 1024


def router(ledger: Ledger, writing: Writing) -> APIRouter:
    """``/reviews/<run id>``: the form and the history (GET), one more review (POST)."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/reviews/{run_id}")
    def page(run_id: str) -> Response:
        """What the report says, who has reviewed it, and the form."""
        return HTMLResponse(_page(ledger, writing, run_id), headers=_FORM_HEADERS)

    @routes.post("/reviews/{run_id}")
    def note(run_id: str, request: Request, given: Annotated[dict[str, str], Depends(_form)]) -> Response:
        """Note the review and show the page again."""
        writing.require_form(request, run_id, word=given.get("word", ""), token=given.get("token", ""))
        by, comment, earlier = given.get("by", ""), given.get("comment", ""), "and_earlier" in given
        try:
            reviews.review(ledger, run_id, by=by, comment=comment, way="service", and_earlier=earlier)
        except reviews.NoReview as missing:
            shown = _page(ledger, writing, run_id, by=by, comment=comment, problem=str(missing))
            return HTMLResponse(shown, status_code=422, headers=_FORM_HEADERS)
        return RedirectResponse(f"/reviews/{quote(run_id, safe='')}", status_code=303)

    return routes


#: The form may be sent to this service, and a browser may tell it where the form came from.
_FORM_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY.replace("form-action 'none'", "form-action 'self'"),
    "Referrer-Policy": "same-origin",
}


def _page(
    ledger: Ledger, writing: Writing, run_id: str, *, by: str = "", comment: str = "", problem: str | None = None
) -> str:
    entry = report_of(ledger, None, run_id)
    return render(
        "review.html.j2",
        entry=entry,
        headline=headline(load_evidence(ledger, run_id)),
        reviews=reviews.reviews_of(ledger, [run_id]).get(run_id, []),
        earlier=[one for one in reviews.waiting(ledger, entry.database) if one.started_at < entry.started_at],
        word=writing.word(run_id),
        asks_token=writing.token is not None,
        refused=writing.open_to_others and writing.token is None,
        by=by,
        comment=comment,
        problem=problem,
    )


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form. Raises ``BadRequest``."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise BadRequest(name="comment", problem="it is too long", hint="Write less.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise BadRequest(name="body", problem="it is no form", hint="Open the page of the report.") from error
    return {name: values[-1] for name, values in fields.items()}

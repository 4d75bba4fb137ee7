"""What is answered to everything that goes wrong: a status, and the error as a page or as the contract's document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response

from dbplatform.alerting.errors import AlreadyOver, AlreadyResolved, SilenceTooLong, UnknownAlert, UnknownSilence
from dbplatform.errors import CannotConnect, NotBuiltYet, PlatformError, VariableNotSet
from dbplatform.monitoring.errors import NothingMeasured, UnknownMetric
from dbplatform.monitoring.explain import NotExplained, PlanTooLarge, TookTooLong, Writes
from dbplatform.operations.reviews import NoReview, NothingToReview
from dbplatform.operations.slow_statements import UnknownStatement
from dbplatform.operations.tokens import TokenRefused
from dbplatform.postgres.connection import ServerRefused, SessionLost
from dbplatform.postgres.transport import TlsNotVerified
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.storage.place import StorageFailed
from dbplatform.web import pages
from dbplatform.web.answers import (
    BadRequest,
    Busy,
    LedgerBehind,
    LedgerSilent,
    NoSuchDatabase,
    NotAllowed,
    NothingToAsk,
    NotLetIn,
    NotMeasured,
    PageNotFound,
    TooLarge,
    TooMany,
    TooSlow,
    WritingRefused,
)

_STATUS: Final[Mapping[type[PlatformError], int]] = {
    NotLetIn: 401,
    TokenRefused: 401,
    NotAllowed: 403,
    WritingRefused: 403,
    NoSuchDatabase: 404,
    NotMeasured: 404,
    PageNotFound: 404,
    ReportNotFound: 404,
    NothingToReview: 404,
    UnknownMetric: 404,
    UnknownAlert: 404,
    UnknownSilence: 404,
    UnknownStatement: 404,
    TooSlow: 408,
    AlreadyResolved: 409,
    AlreadyOver: 409,
    NothingToAsk: 409,
    TooLarge: 413,
    BadRequest: 422,
    NoReview: 422,
    SilenceTooLong: 422,
    NotExplained: 422,
    PlanTooLarge: 422,
    TookTooLong: 422,
    Writes: 422,
    TooMany: 429,
    Busy: 429,
    LedgerSilent: 503,
    LedgerBehind: 503,
    StorageFailed: 503,
    NothingMeasured: 503,
    CannotConnect: 503,
    ServerRefused: 503,
    SessionLost: 503,
    VariableNotSet: 503,
    TlsNotVerified: 503,
}
_FOR_PROGRAMS: Final = ("/api/", "/ws", "/metrics", "/healthz", "/readyz")


class Failed(BaseModel):
    """What went wrong, in one sentence, and the next step."""

    model_config = ConfigDict(extra="allow")

    kind: str
    message: str
    hint: str | None
    file: str | None
    line: int | None


class Failure(BaseModel):
    """The answer to a request that failed."""

    error: Failed


def failed(request: HTTPConnection, error: Exception) -> Response:
    """The answer: a page for a browser that asks for one, the ``error`` object of the contract for everybody else."""
    if isinstance(error, DataError):  # a name that PostgreSQL cannot even hold, such as one with NUL
        error = PageNotFound(path=request.url.path, hint="Begin at /.")
    elif isinstance(error, SQLAlchemyError):
        error = LedgerSilent.because(error)
    elif not isinstance(error, PlatformError):
        error = PlatformError("The service has made a mistake.", hint="Its log says which one.")
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if isinstance(error, NotBuiltYet):
        status = 501 if request.url.path.startswith("/api/") else 404
    answer: Response
    if wants_page(request):
        answer = HTMLResponse(pages.error_page(status, error), status_code=status)
    else:
        answer = JSONResponse({"error": error.as_json()}, status_code=status)
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="dbplatform"'
    if isinstance(error, TooMany):
        answer.headers["Retry-After"] = str(math.ceil(error.fields["seconds"]))
    if isinstance(error, TooLarge | TooSlow):
        answer.headers["Connection"] = "close"
    return answer


def wants_page(request: HTTPConnection) -> bool:
    """A browser asks for one of the pages."""
    asked = "text/html" in request.headers.get("accept", "")
    return asked and not request.url.path.startswith(_FOR_PROGRAMS)

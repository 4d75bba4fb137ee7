"""What is asked of one database: ``/api/v1/databases/<name>/...``, and the same at ``/api/v1/database/...``.

The second address is for a location with one database, or names it by ``?database=``: monitoring that was written for a
single application asks so.
"""

# The annotations of the routes are evaluated at once, because what they depend on is made with the router.

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from dbplatform.web import documents as d
from dbplatform.web.answers import BadRequest
from dbplatform.web.cache import Cache
from dbplatform.web.paging import PartOf, key_of
from dbplatform.web.reading import Reading

Name = Annotated[str, Path(description="The name of the database.", min_length=1, max_length=200)]
Chosen = Annotated[
    str | None,
    Query(description="The name of the database; left out: the only one.", min_length=1, max_length=200),
]
Hours = Annotated[int, Query(ge=1, le=9600, description="How far back.")]


def router(reading: Reading, cache: Cache) -> APIRouter:
    """Both addresses of everything that is read of one database."""

    def by_path(name: Name) -> str:
        return name

    def the_only_one(database: Chosen = None) -> str:
        if database is not None:
            return database
        names = reading.location.names
        if len(names) != 1:
            problem = f"this location has {len(names)} databases"
            raise BadRequest(name="database", problem=problem, hint="Name one: ?database=NAME")
        return names[0]

    routes = APIRouter()
    _add(routes, "/api/v1/databases/{name}", by_path, reading, cache)
    _add(routes, "/api/v1/database", the_only_one, reading, cache)
    return routes


def _add(routes: APIRouter, prefix: str, named: Callable[..., str], reading: Reading, cache: Cache) -> None:
    Database = Annotated[str, Depends(named)]

    def answer(request: Request, name: str, make: Callable[[], BaseModel]) -> Response:
        return cache.answer(request, (name, *key_of(request)), make)

    @routes.get(f"{prefix}/health", response_model=d.HealthDocument)
    def health(request: Request, name: Database) -> Response:
        """The score of what was measured last, with every deduction: the document of ``dbplatform health --json``."""
        return answer(request, name, lambda: reading.health(name))

    @routes.get(f"{prefix}/metrics", response_model=d.MetricsDocument)
    def metrics(request: Request, name: Database) -> Response:
        """What was measured last: the document of ``dbplatform metrics --json``."""
        return answer(request, name, lambda: reading.metrics(name))

    @routes.get(f"{prefix}/metrics/history", response_model=d.MetricHistory)
    def history(
        request: Request,
        name: Database,
        metric: Annotated[str, Query(max_length=100, description="The name of the metric.")],
        hours: Hours = 24,
    ) -> Response:
        """How a metric was before; at most 360 values, the newest always among them."""
        return answer(request, name, lambda: reading.history(name, metric, hours))

    @routes.get(f"{prefix}/connections", response_model=d.Connections)
    def connections(request: Request, name: Database) -> Response:
        """The sessions as they were counted last, and who waits for whom."""
        return answer(request, name, lambda: reading.connections(name))

    @routes.get(f"{prefix}/slow-queries", response_model=d.SlowQueries)
    def slow_queries(
        request: Request,
        name: Database,
        hours: Annotated[int, Query(ge=1, le=720, description="How far back.")] = 1,
        min_mean_seconds: Annotated[float, Query(ge=0, le=86400, description="What is called slow.")] = 1.0,
    ) -> Response:
        """The statements that take long, or in which something stands out; no values of theirs are known."""
        return answer(request, name, lambda: reading.slow_queries(name, hours=hours, min_mean_s=min_mean_seconds))

    @routes.get(f"{prefix}/recommendations", response_model=d.Recommendations)
    def recommendations(request: Request, name: Database, part: PartOf) -> Response:
        """The open advice, as ``dbplatform advise list`` found it last."""
        return answer(request, name, lambda: reading.recommendations(name, part))

    @routes.get(f"{prefix}/dashboard", response_model=d.Dashboard)
    def dashboard(request: Request, name: Database) -> Response:
        """What a page about the database needs, in one document."""
        return answer(request, name, lambda: reading.dashboard(name))

    @routes.get(f"{prefix}/alerts", response_model=d.Alerts)
    def alerts(request: Request, name: Database, part: PartOf, resolved: bool = False) -> Response:
        """Its open alerts, with ``resolved=true`` the past ones, too."""
        return answer(request, name, lambda: reading.alerts(name, part, resolved=resolved))

    @routes.get(f"{prefix}/backups", response_model=d.Backups)
    def backups(request: Request, name: Database, part: PartOf) -> Response:
        """Its backups with their proof, and the newest drills."""
        return answer(request, name, lambda: reading.backups(name, part))

    @routes.get(f"{prefix}/quality", response_model=d.Quality)
    def quality(request: Request, name: Database) -> Response:
        """What the newest run of checks found, and how the runs before it ended."""
        return answer(request, name, lambda: reading.quality(name))

    @routes.get(f"{prefix}/runs", response_model=d.Runs)
    def runs(request: Request, name: Database, part: PartOf) -> Response:
        """What was done on it: migrations, backups, archives and so on, and the runs of checks."""
        return answer(request, name, lambda: reading.runs(name, part))

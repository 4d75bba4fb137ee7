"""Thousands of requests made from the OpenAPI description: no 5xx, no status or document that is not described.

What schemathesis checks is counted here, too: each operation of the description was asked, and none answered with 5xx.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.web.app import create_app
from dbplatform.web.bounds import Rate
from dbplatform.web.location import location_of
from dbplatform.web.server import configuration, listen
from dbplatform_tests.web.recorded_samples import recorded_database

_DECLARATION = """
type: dbplatform.ManagedDatabase
attributes: {name: shop, connection: {url_env: SHOP_URL}, migrations: {directory: migrations}}
"""
_CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "unsupported_method", "use_after_free",
)  # fmt: skip


class Counted:
    """What was asked of an application, by method and route, and with which status it answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.answers: Counter[tuple[str, str, int]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = str(getattr(scope.get("route"), "path", scope["path"]))
                self.answers[scope["method"], route, message["status"]] += 1
            await send(message)

        await self.app(scope, receive, counting if scope["type"] == "http" else send)


@pytest.mark.drill
def test_the_api_keeps_to_its_description_whatever_is_asked(
    ledger: Ledger, database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    assert program.exists(), "schemathesis is not installed: it is one of the dev dependencies"
    (tmp_path / "defs" / "shop" / "migrations").mkdir(parents=True)
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(_DECLARATION)
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.name" = "shop"\n')
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    recorded_database(ledger)
    app = create_app(
        ledger,
        tmp_path / "reports",
        location=location_of(Platform(Project.at(tmp_path))),
        rate=Rate(per_second=1e9, burst=1e9),
    )
    counted = Counted(app)
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(configuration(counted))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1/openapi.json"
            asked = subprocess.run(
                [
                    *(program, "--config-file", tmp_path / "schemathesis.toml", "run", address),
                    *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(_CHECKS), "--max-examples", "50"),
                    *("--request-timeout", "60"),  # a busy machine is slow, not wrong
                ],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=1_800,
            )
        finally:
            server.should_exit = True
            thread.join(timeout=30)
    assert asked.returncode == 0, asked.stdout[-8_000:]
    assert {answer: many for answer, many in counted.answers.items() if answer[2] >= 500} == {}
    described = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert described - {(method, route) for method, route, _ in counted.answers} == set()
    assert sum(counted.answers.values()) > 50 * len(described)

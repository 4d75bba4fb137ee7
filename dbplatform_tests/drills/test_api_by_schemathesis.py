"""Thousands of requests made from the OpenAPI description: no 5xx, no status or document that is not described."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvicorn

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
    recorded_database(ledger)
    app = create_app(
        ledger,
        tmp_path / "reports",
        location=location_of(Platform(Project.at(tmp_path))),
        rate=Rate(per_second=1e9, burst=1e9),
    )
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(configuration(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1/openapi.json"
            asked = subprocess.run(
                [
                    *(program, "--config-file", tmp_path / "schemathesis.toml", "run", address),
                    *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(_CHECKS), "--max-examples", "50"),
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
    assert "0 generated" not in asked.stdout

"""Each PostgreSQL of this machine as a server of its own, for the tests of metrics; used by ``pytest_plugins``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.embedded_support import embedded, open_folder

#: Debian's packages, and what `make drill` installs beside the tests' own server.
_FOLDERS = (
    *Path("/usr/lib/postgresql").glob("*/bin/postgres"),
    *Path(os.environ.get("DBPLATFORM_TEST_SERVERS", REPOSITORY / ".venv")).glob("postgres-*/**/bin/postgres"),
)


def version_of(folder: Path | None) -> str:
    """The major version, by the folder's name."""
    found = re.search(r"postgres(?:ql)?[-/](\d+)/", str(folder))
    return found[1] if found else "own"


#: The one that the embedded server takes by itself, and as drills each of the others.
INSTALLATIONS = [
    pytest.param(None),
    *(pytest.param(file.parent, marks=pytest.mark.drill) for file in sorted(_FOLDERS)),
]
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "128MB",
    "archive_mode": "on",
    "archive_command": "false",
    # What vacuum owes, and the age of transaction ids, are made by hand, and must not be mended meanwhile.
    "autovacuum": "off",
    "autovacuum_freeze_max_age": "2000000000",
}


@pytest.fixture(scope="module", params=INSTALLATIONS, ids=version_of)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """The server, for the tests of one module."""
    with pytest.MonkeyPatch.context() as patch, open_folder() as folder:
        patch.delenv("DBPLATFORM_PG_PORT", raising=False)
        if request.param is not None:
            patch.setenv("DBPLATFORM_PG_BIN", str(request.param))
        with embedded(folder / "home", settings=SETTINGS) as server:
            server.start()
            yield server


@pytest.fixture
def target(server: EmbeddedServer) -> Target:
    """Its database ``postgres``, which the tests of a module share."""
    return Target("flights", server.url("postgres"))

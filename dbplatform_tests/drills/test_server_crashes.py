"""The server is killed and started again at any moment of a work: what was there is there, and the next run ends right.

Its postmaster gets ``kill -9``: nothing is said to anybody, and the start recovers from the WAL. The ledger is on the
same server, as it is where nothing else is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.conftest import created
from dbplatform_tests.drills.breaking import MOMENTS, broken, counted, crash
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.works import WORKS, Work
from dbplatform_tests.postgres.embedded_support import embedded, open_folder


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server for these tests alone, with a template of a ledger."""
    with open_folder() as home, embedded(home / "home", settings={"fsync": "off"}) as server:
        server.start()
        server.ensure_database("ledger_template")
        apply_ledger_schema(Target("ledger", server.url("ledger_template")))
        yield server


@pytest.fixture
def make(server: EmbeddedServer, tmp_path: Path) -> Iterator[Callable[[str, str], Work]]:
    """Makes a work with a database, a ledger and a folder of its own."""
    url = server.url()

    def made(capability: str, folder: str) -> Work:
        database = stack.enter_context(created(url, "template1"))
        ledger = Ledger(stack.enter_context(created(url, "ledger_template")))
        stack.callback(lambda: ledger.engine.dispose())
        return WORKS[capability](database=database, ledger=ledger, folder=tmp_path / folder)

    with ExitStack() as stack:
        yield made


@pytest.fixture(scope="module")
def counts() -> dict[str, int]:
    """The requests of each work, once they were counted."""
    return {}


@pytest.mark.parametrize(
    ("capability", "moment"),
    cases(
        *((name, moment) for name in WORKS for moment in range(MOMENTS)),
        sample=(("migrations", 8), ("archives", 12)),
    ),
)
def test_work_whose_server_crashes_here_is_finished_by_the_next(
    server: EmbeddedServer,
    make: Callable[[str, str], Work],
    counts: dict[str, int],
    capability: str,
    moment: int,
) -> None:
    if capability not in counts:
        undisturbed = make(capability, "undisturbed")
        counts[capability] = counted(undisturbed.database, undisturbed.run)
        undisturbed.ended()
    work = make(capability, "broken")
    failed = broken(work.database, work.run, lambda: crash(server), moment=moment, of=counts[capability])
    work.holds()
    if failed:
        work.run()
    work.ended()

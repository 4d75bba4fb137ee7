"""The server is killed and started again at any moment of a work: what was there is there, and the next run ends right.

Its postmaster gets ``kill -9``: nothing is said to anybody, and the start recovers from the WAL. Or a session gets it,
as Linux does where memory ends: the server ends all others, and recovers by itself. The ledger is on the same server,
as it is where nothing else is declared.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import CannotConnect
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.conftest import created
from dbplatform_tests.drills.breaking import MOMENTS, broken, counted, crash, kill_session, takes_sessions
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.works import WORKS, Work
from dbplatform_tests.postgres.embedded_support import embedded, open_folder, wait_until

#: Moments of each work at which a session is killed.
KILLS = 4


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


def requests_of(capability: str, make: Callable[[str, str], Work], counts: dict[str, int]) -> int:
    if capability not in counts:
        undisturbed = make(capability, "undisturbed")
        counts[capability] = counted(undisturbed.database, undisturbed.run)
        undisturbed.ended()
    return counts[capability]


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
    requests = requests_of(capability, make, counts)
    work = make(capability, "broken")
    failed = broken(work.database, work.run, lambda: crash(server), moment=moment, of=requests)
    work.holds()
    if failed:
        work.run()
    work.ended()


@pytest.mark.parametrize(
    ("capability", "moment"),
    cases(*((name, moment) for name in WORKS for moment in range(KILLS)), sample=(("seeding", 2),)),
)
def test_work_whose_server_lost_a_session_for_want_of_memory_here_is_finished_by_the_next(
    make: Callable[[str, str], Work], counts: dict[str, int], capability: str, moment: int
) -> None:
    requests = requests_of(capability, make, counts)
    work = make(capability, "broken")
    failed = broken(
        work.database, work.run, lambda: kill_session(work.database), moment=moment, of=requests, moments=KILLS
    )
    wait_until(lambda: takes_sessions(work.database))
    work.holds()
    if failed:
        work.run()
    work.ended()


def test_while_the_server_recovers_that_is_said_and_what_to_do(make: Callable[[str, str], Work]) -> None:
    """It recovers when the last session has ended, and one that is stopped takes its time."""
    work = make("seeding", "refused")
    with closing(psycopg.connect(work.database.url)) as slow, connect(work.database, work="victim"):
        os.kill(slow.info.backend_pid, signal.SIGSTOP)
        try:
            kill_session(work.database)
            with pytest.raises(CannotConnect, match="in recovery mode") as refused:
                work.run()
        finally:
            os.kill(slow.info.backend_pid, signal.SIGCONT)
    assert "Wait until it is ready" in str(refused.value)
    wait_until(lambda: takes_sessions(work.database))
    work.run()
    work.ended()

"""The synchronous standby is lost at any moment of a work: its commit would wait for ever, with all of its locks.

After a bound the work is ended and says why; what was committed is there, nothing twice, and the next run ends right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Watch
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.standbys import StandbyDoesNotAnswer, answered
from dbplatform_tests.conftest import created
from dbplatform_tests.drills.breaking import MOMENTS, broken, counted
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.standbys import hurry, no_standby, standby_until_lost
from dbplatform_tests.drills.test_cut_connections import COMMANDS, FILES, SHOP
from dbplatform_tests.drills.works import WORKS, Work
from dbplatform_tests.postgres.archiving_support import ask
from dbplatform_tests.postgres.embedded_support import embedded, open_folder
from dbplatform_tests.typed import Type

PROBE = "synchronous standbys"
#: Before a request, each of them: that its answer is lost, too, other drills have.
BEFORE = range(2, MOMENTS, 4)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with open_folder() as home, embedded(home / "home", settings={"fsync": "off"}) as server:
        server.start()
        server.ensure_database("ledger_template")
        apply_ledger_schema(Target("ledger", server.url("ledger_template")))
        yield server


@pytest.fixture
def database(server: EmbeddedServer) -> Iterator[Target]:
    """On the server whose standby is lost; the ledger is elsewhere."""
    with created(server.url(), "template1") as target:
        yield target


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def make(
    server: EmbeddedServer, server_url: str, ledger_template: str, tmp_path: Path
) -> Iterator[Callable[[str, str], Work]]:
    """Makes a work with a database, a ledger on another server, and a folder of its own."""

    def made(capability: str, folder: str) -> Work:
        database = stack.enter_context(created(server.url(), "template1"))
        ledger = Ledger(stack.enter_context(created(server_url, ledger_template)))
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
    cases(*((name, moment) for name in WORKS for moment in BEFORE), sample=(("migrations", 6), ("conversion", 10))),
)
def test_work_whose_synchronous_standby_is_lost_here_is_finished_by_the_next(
    server: EmbeddedServer,
    make: Callable[[str, str], Work],
    tmp_path: Path,
    counts: dict[str, int],
    capability: str,
    moment: int,
) -> None:
    if capability not in counts:
        undisturbed = make(capability, "undisturbed")
        counts[capability] = counted(undisturbed.database, undisturbed.run)
    work = make(capability, "broken")
    told: list[Exception] = []

    def run() -> None:
        try:
            with answered(work.database):
                work.run()
        except Exception as error:
            told.append(error)
            raise

    with standby_until_lost(server.url(), tmp_path / "wal") as lose:
        failed = broken(work.database, run, lose, moment=moment, of=counts[capability])
        work.holds()
    work.holds()
    assert [type(error) for error in told] == [StandbyDoesNotAnswer] * failed
    if failed:
        work.run()
    work.ended()


def test_a_command_says_that_no_standby_answers_and_the_next_one_ends_right(
    declare_shop: Callable[[str], Type], server: EmbeddedServer, database: Target, tmp_path: Path
) -> None:
    typed = declare_shop(SHOP)
    for file, text in FILES.items():
        (tmp_path / "defs" / "shop" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "defs" / "shop" / file).write_text(text)
    with no_standby(server.url()):
        [found] = [one for one in typed("doctor", "shop", "--json").json["findings"] if one["probe"] == PROBE]
        refused = typed("migrate", "apply", "shop")
    assert (found["status"], "0 of 1 synchronous standbys answer" in found["message"]) == ("error", True)
    assert refused.code == 3
    assert "has waited 0.5 s for a synchronous standby (gone); none answers" in refused.err
    assert "take it out of synchronous_standby_names" in refused.err
    assert {typed(*command).code for command in COMMANDS.values()} == {0}
    assert ask(database, "select count(*), count(distinct id) from item") == (2, 2)


def test_nothing_begins_that_a_ledger_whose_standby_is_lost_has_not_written_down(server: EmbeddedServer) -> None:
    with created(server.url(), "ledger_template") as store:
        ledger, begun = Ledger(store), []
        with no_standby(server.url()):
            with pytest.raises(StandbyDoesNotAnswer), ledger.operation("shop", "migrate"):
                begun.append("migrate")
            with pytest.raises(StandbyDoesNotAnswer), ledger.session() as session:
                session.add(Watch(database="shop", looked_at=datetime.now(UTC)))
        assert begun == []
        with ledger.operation("shop", "migrate") as summary:
            summary["done"] = True
        ended = "select array_agg(status order by started_at) from ledger.operation"
        assert ask(store, ended) == ["running", "succeeded"]
        ledger.engine.dispose()

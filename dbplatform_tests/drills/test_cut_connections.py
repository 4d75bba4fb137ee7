"""Sessions that are ended at any moment, and a ledger that goes away: nothing is lost, doubled, or claimed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dbplatform.alerting.record import list_alerts
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import record
from dbplatform.monitoring.metrics import Metrics
from dbplatform.operations import alerts
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform_tests.conftest import created
from dbplatform_tests.drills.breaking import MOMENTS, broken, counted, cut, unreachable
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.works import WORKS, Work
from dbplatform_tests.postgres.archiving_support import ask
from dbplatform_tests.typed import Type, Typed

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {}
  seeds: [{profile: dev, directory: seeds}]
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 2, start: 2026-01-01}
    - {table: event, column: at, interval: 1 month, premake: 2}
  quality: [{table: item, checks: [{not_null: name}]}]
"""
FILES = {
    "migrations/V1__first.sql": "create table item (id int primary key, name text);\n"
    "create table sale (at timestamptz not null) partition by range (at);\n"
    "create table event (at timestamptz not null, body text);\n"
    "insert into event select timestamptz '2026-03-15' - i * interval '1 hour', 'b' || i"
    " from generate_series(1, 500) i;\n",
    "seeds/item.csv": "id,name\n1,pen\n2,ink\n",
}
WATCHED = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
"""
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: So many moments of a look, which makes some requests more.
LOOKED = 4
#: In this order.
COMMANDS = {
    "migrations": ("migrate", "apply", "shop"),
    "seeding": ("seed", "apply", "shop"),
    "conversion": ("partition", "convert", "shop", "--table", "event"),
    "partitions": ("partition", "apply", "shop"),
    "data quality": ("check", "shop"),
}
#: Each makes at least so many to the ledger.
REQUESTS = 4
#: The requests of each work, counted once: ``counts(name, which)``.
Counts = Callable[[str, str], int]


@pytest.fixture(scope="module")
def counts(server_url: str, ledger_template: str, tmp_path_factory: pytest.TempPathFactory) -> Counts:
    known: dict[tuple[str, str], int] = {}

    def count(name: str, which: str) -> int:
        if (name, which) not in known:
            with created(server_url, "template1") as database, created(server_url, ledger_template) as store:
                ledger = Ledger(store)
                work = WORKS[name](database=database, ledger=ledger, folder=tmp_path_factory.mktemp(name) / "work")
                known[name, which] = counted(database if which == "database" else store, work.run)
                work.ended()
                ledger.engine.dispose()
        return known[name, which]

    return count


@pytest.mark.parametrize(
    ("capability", "moment"),
    cases(
        *((name, moment) for name in WORKS for moment in range(MOMENTS)),
        sample=(("migrations", 9), ("seeding", 12), ("conversion", 10)),
    ),
)
def test_work_whose_sessions_are_cut_here_is_finished_by_the_next(
    database: Target, ledger: Ledger, tmp_path: Path, counts: Counts, capability: str, moment: int
) -> None:
    requests = counts(capability, "database")
    work = WORKS[capability](database=database, ledger=ledger, folder=tmp_path / "work")
    failed = broken(database, work.run, lambda: cut(database), moment=moment, of=requests)
    finished(work, failed)


@pytest.mark.parametrize(
    ("capability", "moment"),
    cases(*(("archives", moment) for moment in range(MOMENTS)), sample=(("archives", 11),)),
)
def test_work_whose_ledger_goes_away_here_is_finished_by_the_next(
    database: Target, ledger: Ledger, tmp_path: Path, counts: Counts, capability: str, moment: int
) -> None:
    requests = counts(capability, "ledger")
    work = WORKS[capability](database=database, ledger=ledger, folder=tmp_path / "work")
    with unreachable(ledger.target) as close:
        failed = broken(ledger.target, work.run, close, moment=moment, of=requests)
    finished(work, failed)


@pytest.mark.parametrize(
    ("capability", "moment"),
    cases(
        *((capability, moment) for capability in COMMANDS for moment in range(REQUESTS)),
        sample=(("seeding", 1), ("seeding", 2)),
    ),
)
def test_a_command_whose_ledger_goes_away_here_says_so_and_the_next_ends_right(
    declare_shop: Callable[[str], Type], database: Target, ledger: Ledger, tmp_path: Path, capability: str, moment: int
) -> None:
    typed = declare_shop(SHOP)
    for file, text in FILES.items():
        (tmp_path / "defs" / "shop" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "defs" / "shop" / file).write_text(text)
    for before in COMMANDS:
        if before == capability:
            break
        assert typed(*COMMANDS[before]).code == 0
    answers: list[Typed] = []

    def command() -> None:
        answers.append(typed(*COMMANDS[capability]))

    with unreachable(ledger.target) as close:
        broken(ledger.target, command, close, moment=moment, of=REQUESTS, moments=REQUESTS)
    command()
    assert [answer.code for answer in answers] == [3, 0], answers
    assert "ledger" in answers[0].err
    assert "mistake of dbplatform" not in answers[0].err
    if capability != "migrations":
        assert ask(database, "select count(*), count(distinct id), min(name) from item") == (2, 2, "ink")
    if capability == "conversion":
        assert ask(database, "select relkind from pg_class where oid = 'event'::regclass") == "p"
    assert ask(database, "select count(*), count(distinct body) from event") == (500, 500)


@pytest.mark.parametrize("moment", cases(*range(LOOKED), sample=(1,)))
def test_a_look_whose_session_is_cut_here_measures_all_or_nothing_and_the_next_one_all(
    declare_shop: Callable[[str], Type], database: Target, tmp_path: Path, moment: int
) -> None:
    declare_shop(WATCHED)
    platform = Platform(Project.at(tmp_path))
    declared = platform.declarations.get("shop")

    def look(minute: int) -> Metrics:
        alerts.watch(platform, declared, now=NOW + timedelta(minutes=minute))
        found = record.latest(platform.ledger, "shop")
        assert found is not None
        return found

    look(0)
    requests = counted(database, lambda: look(1))
    whole = look(2)
    broken(database, lambda: look(3), lambda: cut(database), moment=moment, of=requests, moments=LOOKED)
    found = record.latest(platform.ledger, "shop")
    assert found is not None
    assert found.at >= whole.at
    assert (found.values.keys(), found.unmeasured.keys()) == (whole.values.keys(), whole.unmeasured.keys())
    again = look(4)
    assert (again.at > found.at, again.values.keys()) == (True, whole.values.keys())
    assert [alert for alert in list_alerts(platform.ledger, "shop") if alert.state == "firing"] == []
    platform.ledger.engine.dispose()


def finished(work: Work, failed: bool) -> None:
    """Assert that nothing is amiss after the fault, and that the next run ends the work where it told a failure."""
    work.holds()
    if failed:
        work.run()
    work.ended()

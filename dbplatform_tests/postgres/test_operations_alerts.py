"""From what happens in a database, its checks and its runs to the message that arrives, and to its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select

from dbplatform.alerting.record import list_alerts
from dbplatform.backups.catalogue import mark_damaged
from dbplatform.backups.physical.known import remember
from dbplatform.cli.main import main
from dbplatform.declaration.project import Project
from dbplatform.ledger.backups import BackupRecord, DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.ledger.monitoring import MetricHistory, Outbox
from dbplatform.monitoring import collect, forgetting
from dbplatform.monitoring.probes.collecting import Probe
from dbplatform.operations import alerts, checks, looks, wal, watching
from dbplatform.operations.alerts import Watched
from dbplatform.operations.observations import RunEnd, Runs
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform_tests.receiver import SECRET, Receiver

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  quality:
    - table: item
      checks:
        - not_null: name
        - range: {column: price, min: 0, severity: warn}
  thresholds:
    - {metric: idle_in_transaction_s, critical: "> 0s", for: 0s, keep_firing_for: 0s}
    - {metric: health_score, warn: "< 0"}
  notify: [{url_env: ALERT_URL}]
"""
_AWAY = """\
type: dbplatform.ManagedDatabase
attributes:
  name: away
  connection: {url_env: AWAY_URL}
  notify: [{url_env: ALERT_URL}]
"""

#: Watches every declared database, some minutes after the start; a new platform each time, as after a restart.
Look = Callable[..., dict[str, Watched]]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    monkeypatch.setenv("ALERT_URL", receiver.url)
    yield receiver
    receiver.close()


@pytest.fixture
def shop(database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one database, which has one table with one good row; its declaration's file."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_SHOP)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    with psycopg.connect(database.url) as connection:
        connection.execute("create table item (name text, price int)")
        connection.execute("insert into item values ('pen', 1)")
    return file


@pytest.fixture
def look(shop: Path) -> Look:
    start = datetime.now(UTC)

    def watched(minutes: float = 0, **runs: Runs) -> dict[str, Watched]:
        platform = Platform(Project.at(shop.parents[2]))
        databases = platform.declarations.databases
        looks, failed = alerts.watch_all(platform, databases, now=start + timedelta(minutes=minutes), runs=runs)
        platform.ledger.engine.dispose()
        assert failed == {}
        return {looked.database: looked for looked in looks}

    return watched


def keys(looked: Watched) -> set[str]:
    return {alert.key for alert in looked.alerts}


def check(shop: Path, run_id: str) -> None:
    """Run the checks of the table, as the graph does."""
    platform = Platform(Project.at(shop.parents[2]))
    declared = platform.declarations.get("shop")
    checks.record.start_run(platform.ledger, "shop", run_id)
    checks.check_table(platform, declared, declared.database.quality[0].table, run_id=run_id)
    checks.finish_run(platform, declared, run_id)
    platform.ledger.engine.dispose()


def sql(database: Target, *statements: str) -> None:
    with psycopg.connect(database.url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_a_breach_sends_one_message_its_end_another_and_a_restart_none(
    database: Target, look: Look, receiver: Receiver
) -> None:
    with psycopg.connect(database.url) as idle:
        idle.execute("select 1")
        assert keys(look(0)["shop"]) == {"idle_in_transaction_s"}
        for minute in (1, 2, 3):
            look(minute)
        assert receiver.titles == ["[critical] shop: idle_in_transaction_s"]
        assert "The limit is > 0s" in receiver.taken[0]["message"]
        assert "idle_in_transaction_session_timeout" in receiver.taken[0]["message"], "the advice"
    assert look(4)["shop"].alerts == ()
    look(5)
    assert receiver.titles[1:] == ["[resolved] shop: idle_in_transaction_s"]


def test_a_score_below_its_limit_is_an_alert_whose_cause_names_the_deductions(
    shop: Path, database: Target, look: Look, receiver: Receiver
) -> None:
    shop.write_text(
        _SHOP.replace('health_score, warn: "< 0"', 'health_score, warn: "< 80", for: 0s, keep_firing_for: 0s')
    )
    with psycopg.connect(database.url) as idle:
        idle.execute("select 1")
        assert keys(look(0)["shop"]) == {"health_score", "idle_in_transaction_s"}
    (told,) = receiver.taken
    assert "grade C: idle_in_transaction_s -25" in told["message"], "one message tells both"
    assert look(1)["shop"].alerts == ()


def test_a_channel_that_is_down_is_tried_again_at_every_look_and_said_to_fail(
    database: Target, ledger: Ledger, look: Look, receiver: Receiver
) -> None:
    receiver.status = 503
    with psycopg.connect(database.url) as idle:
        idle.execute("select 1")
        look(0)
        look(1)
        assert receiver.taken == []
        failing = alerts.waiting_messages(ledger, ["ALERT_URL"])
        assert "503" in failing["ALERT_URL"]
        assert SECRET not in failing["ALERT_URL"]
        receiver.status = 200
        look(20)
    assert receiver.titles == ["[critical] shop: idle_in_transaction_s"]
    assert alerts.waiting_messages(ledger, ["ALERT_URL"]) == {}


def test_a_database_that_cannot_be_reached_is_an_alert_after_a_minute_and_hides_no_other(
    database: Target, shop: Path, look: Look, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = shop.parents[1] / "away" / "defs.yaml"
    away.parent.mkdir()
    away.write_text(_AWAY)
    monkeypatch.setenv("AWAY_URL", "postgresql://someone:secret-word@127.0.0.1:1/nothing")
    first = look(0)
    assert first["shop"].metrics is not None
    assert (first["away"].metrics, [a.state for a in first["away"].alerts]) == (None, ["pending"])
    assert receiver.taken == []
    look(1)
    assert receiver.titles == ["[critical] away: reachable"]
    assert "doctor away" in receiver.taken[0]["message"]
    assert "secret-word" not in json.dumps(receiver.taken)
    monkeypatch.setenv("AWAY_URL", database.url)
    assert look(2)["away"].alerts == ()
    assert receiver.titles[1:] == ["[resolved] away: reachable"]


def test_who_measures_between_two_looks_takes_no_count_away_from_the_alerts(
    database: Target, shop: Path, look: Look
) -> None:
    limit = 'idle_in_transaction_s, critical: "> 0s", for: 0s'
    shop.write_text(_SHOP.replace(limit, 'temp_files, critical: "> 0"'))
    assert keys(look(0)["shop"]) == set()
    sql(
        database,
        "set work_mem = '64kB'",
        "create table sorted as select n from generate_series(1, 50000) n order by -n",
        "select pg_stat_force_next_flush()",
    )
    platform = Platform(Project.at(shop.parents[2]))
    by_hand = watching.measure(platform, platform.declarations.get("shop"))
    platform.ledger.engine.dispose()
    assert by_hand.values["temp_files"].value > 0
    looked = look(1)["shop"]
    assert {alert.key for alert in looked.firing} == {"temp_files"}, "the first look that counts one is enough"


def test_limits_that_can_no_longer_be_measured_are_one_warning_after_a_quarter_of_an_hour(
    shop: Path, ledger: Ledger, look: Look, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys(look(0)["shop"]) == set(), "slow_statement_s has no extension and never had one"
    long_ago = datetime.now(UTC) - timedelta(days=3)
    with ledger.session() as session:
        measured = {"longest_lock_wait_s": [0, 0, 0, 60]}
        session.add(MetricHistory(database="shop", step_s=3600, at=long_ago, measured=measured))

    def refuse(*_: object) -> None:
        raise psycopg.errors.QueryCanceled("it ran into the time limit")

    with monkeypatch.context() as broken:
        broken.setattr(collect, "PROBES", [Probe(probe.names, refuse) for probe in collect.PROBES])
        for minute in (1, 15):
            assert look(minute)["shop"].firing == ()
        [alert] = look(16)["shop"].firing
    assert (alert.key, alert.severity) == ("unmeasured", "warning")
    assert "idle_in_transaction_s: it ran into the time limit" in alert.cause, "it is declared"
    assert "longest_lock_wait_s" in alert.cause, "it was measured before"
    assert "sequence_used_ratio" not in alert.cause, "nobody declared it, and it never was"
    assert keys(look(17)["shop"]) == set()
    assert receiver.titles == ["[warning] shop: unmeasured", "[resolved] shop: unmeasured"]


def test_a_look_that_fails_for_three_minutes_is_an_alert_of_the_platform_until_the_next_good_one(
    shop: Path, ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform(Project.at(shop.parents[2]))
    databases, start = platform.declarations.databases, datetime.now(UTC)

    def look(minute: float) -> dict[str, str]:
        return alerts.watch_all(platform, databases, now=start + timedelta(minutes=minute), runs={})[1]

    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by the watch")

    with monkeypatch.context() as broken:
        broken.setattr(watching, "measure", breaks)
        for minute in (0, 1, 2):
            assert "by the watch" in look(minute)["shop"]
        assert receiver.titles == [], "it may be well again a minute later"
        look(3)
    assert receiver.titles == ["[critical] dbplatform: watch of shop"]
    assert "ZeroDivisionError: by the watch" in receiver.taken[0]["message"]
    assert "#look" in receiver.taken[0]["message"]
    look(4)
    assert receiver.titles[1:] == ["[resolved] dbplatform: watch of shop"]
    platform.ledger.engine.dispose()


def test_failed_and_errored_checks_of_a_run_are_one_message_and_resolved_by_the_next_good_run(
    database: Target, shop: Path, look: Look, receiver: Receiver
) -> None:
    check(shop, "good")
    assert look(0)["shop"].alerts == ()
    sql(database, "insert into item values (null, -1)")
    check(shop, "bad")
    found = {alert.key: alert.severity for alert in look(1)["shop"].alerts}
    assert found == {"check:public.item.not_null_name": "critical", "check:public.item.range_price": "warning"}
    assert receiver.titles == ["[critical] shop: 2 alerts: item not_null_name, item range_price"]

    sql(database, "delete from item where name is null", "alter table item rename price to cost")
    check(shop, "errored")
    [alert] = look(2)["shop"].alerts
    assert (alert.key, alert.severity) == ("check:public.item.range_price", "critical")
    assert "could not run" in alert.cause
    assert receiver.titles[1:] == ["[resolved] shop: item not_null_name", "[critical] shop: item range_price"]

    sql(database, "alter table item rename cost to price")
    check(shop, "mended")
    assert look(3)["shop"].alerts == ()
    assert receiver.titles[3:] == ["[resolved] shop: item range_price"]


def test_a_failed_run_is_an_alert_until_the_job_succeeds(look: Look, receiver: Receiver) -> None:
    jobs = ("shop", "shop_quality")
    failed = RunEnd(job="shop", succeeded=False, reason="in shop/seed: the disk is full.", advice="Its log: http://x")
    other = RunEnd(job="shop_quality", succeeded=True)
    look(0, shop=Runs(jobs=jobs, ended=[RunEnd(job="shop", succeeded=True), failed, other]))
    look(1, shop=Runs(jobs=jobs))
    assert receiver.titles == ["[critical] shop: run of shop"]
    assert "failed: in shop/seed: the disk is full." in receiver.taken[0]["message"]
    look(2, shop=Runs(jobs=jobs, ended=[failed, RunEnd(job="shop", succeeded=True)]))
    assert receiver.titles[1:] == ["[resolved] shop: run of shop"]


def test_what_is_no_longer_declared_is_resolved(database: Target, shop: Path, look: Look, receiver: Receiver) -> None:
    sql(database, "insert into item values (null, -1)")
    check(shop, "bad")
    limit = 'idle_in_transaction_s, critical: "> 0s"'
    shop.write_text(_SHOP.replace(limit, 'database_bytes, warn: "> 1kB"'))
    failed = Runs(jobs=["shop"], ended=[RunEnd(job="shop", succeeded=False, reason="x")])
    assert len(look(0, shop=failed)["shop"].firing) == 4
    shop.write_text(_SHOP.replace("        - not_null: name\n", "").replace(limit, 'deadlocks, warn: "> 0"'))
    assert keys(look(1, shop=Runs(jobs=["other"]))["shop"]) == {"check:public.item.range_price"}
    assert receiver.titles[-1].startswith("[resolved] shop: 3 alerts: ")
    assert "is no longer declared" in receiver.taken[-1]["message"]


def test_a_database_that_was_never_made_is_not_made_by_looking(
    shop: Path, ledger: Ledger, look: Look, tmp_path: Path
) -> None:
    shop.write_text(_SHOP.replace("  connection: {url_env: SHOP_URL}\n", ""))
    looked = look(0)["shop"]
    assert (looked.metrics, looked.alerts) == (None, ())
    assert "dbplatform run shop" in str(looked.problem)
    assert not (tmp_path / "home").exists(), "no server was started"


def test_a_database_that_was_there_and_is_not_any_more_is_an_alert(
    shop: Path, ledger: Ledger, look: Look, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(0)["shop"].there
    failed = Runs(jobs=["shop"], ended=[RunEnd(job="shop", succeeded=False, reason="x")])
    shop.write_text(_SHOP.replace("  connection: {url_env: SHOP_URL}\n", ""))
    assert keys(look(1, shop=failed)["shop"]) == {"reachable", "run:shop"}
    look(2)
    assert receiver.titles == ["[critical] shop: run of shop", "[critical] shop: reachable"]


def test_a_look_without_runs_does_not_hide_those_that_failed_before_it(shop: Path, ledger: Ledger, look: Look) -> None:
    look(0, shop=Runs(jobs=["shop"]))
    platform = Platform(Project.at(shop.parents[2]))
    later = datetime.now(UTC) + timedelta(hours=1)
    before = looks.runs_since(ledger, ["shop"], later)
    alerts.watch(platform, platform.declarations.get("shop"), now=later)
    platform.ledger.engine.dispose()
    assert looks.runs_since(ledger, ["shop"], later) == before


def test_an_overdue_backup_and_drill_and_a_slow_recovery_are_alerts_until_a_new_one(
    shop: Path, ledger: Ledger, look: Look
) -> None:
    limits = {"backup_age_s": "26h", "drill_age_s": "8 days", "recovery_time_s": "1h"}
    told = "".join(
        f"    - {{metric: {name}, critical: '> {limit}', for: 0s, keep_firing_for: 0s}}\n"
        for name, limit in limits.items()
    )
    shop.write_text(_SHOP.replace("  thresholds:\n", f"  backups: {{}}\n  thresholds:\n{told}"))
    assert keys(look()["shop"]) == set()

    with ledger.operation("shop", "migrate"):
        pass
    _backed_up(ledger, "20261101T000000Z-aaaaaa", hours_ago=24 * 9, rto=4000.0)
    metrics = look(1)["shop"].metrics
    assert metrics is not None
    assert {name: metrics.values[name].value // 3600 for name in limits} == {
        "backup_age_s": 216,
        "drill_age_s": 216,
        "recovery_time_s": 1,
    }
    assert keys(look(2)["shop"]) == set(limits)

    _backed_up(ledger, "20261110T000000Z-bbbbbb", hours_ago=1, rto=3000.0)
    assert keys(look(3)["shop"]) == set()

    mark_damaged(ledger, "20261110T000000Z-bbbbbb", ["a byte"])
    assert keys(look(4)["shop"]) == {"backup_age_s", "drill_age_s"}, "what was found damaged is no backup and no proof"


def test_a_database_that_was_never_backed_up_grows_old(shop: Path, ledger: Ledger, look: Look) -> None:
    shop.write_text(_SHOP.replace("  thresholds:\n", "  backups: {}\n  thresholds:\n"))
    with ledger.session() as session:
        session.add(
            Operation(
                database="shop",
                kind="migrate",
                actor="test",
                status="succeeded",
                started_at=datetime.now(UTC) - timedelta(days=3),
            )
        )
    metrics = look()["shop"].metrics
    assert metrics is not None
    assert metrics.values["backup_age_s"].value > timedelta(hours=71).total_seconds()
    assert "no sound backup" in metrics.values["backup_age_s"].detail
    assert set(metrics.absent) >= {"drill_age_s", "recovery_time_s"}
    assert keys(look(1)["shop"]) == {"backup_age_s"}


def test_each_look_brings_wal_into_the_archive_and_tells_when_it_cannot(
    shop: Path, ledger: Ledger, look: Look, tmp_path: Path
) -> None:
    place = tmp_path / "archive"
    physical = f"  backups: {{destination: {place}, physical: {{wal_archive: true}}}}\n  thresholds:\n"
    shop.write_text(_SHOP.replace("  thresholds:\n", physical))
    remember(ledger, "shop", system="7", on_server="shop")
    platform = Platform(Project.at(shop.parents[2]))
    declared = platform.declarations.get("shop")
    spool = wal.spool_of(platform, declared, "7")
    spool.mkdir(parents=True)
    (spool / "000000010000000000000001").write_bytes(b"1" * 100)

    assert "wal_archive" not in keys(look()["shop"])
    assert list(wal.archive_of(platform, declared, "7").files()) == ["000000010000000000000001"]

    aside = place.rename(tmp_path / "aside")
    place.write_text("no folder")
    (spool / "000000010000000000000002").write_bytes(b"2" * 100)
    assert [one.state for one in look(1)["shop"].alerts if one.key == "wal_archive"] == ["pending"]
    assert "wal_archive" in {alert.key for alert in look(7)["shop"].firing}

    place.unlink()
    aside.rename(place)
    assert "wal_archive" not in keys(look(8)["shop"])
    assert len(wal.archive_of(platform, declared, "7").files()) == 2


def test_a_look_brings_no_more_wal_than_it_has_time_for_and_the_next_one_goes_on(
    shop: Path, ledger: Ledger, tmp_path: Path
) -> None:
    physical = f"  backups: {{destination: {tmp_path / 'archive'}, physical: {{wal_archive: true}}}}\n  thresholds:\n"
    shop.write_text(_SHOP.replace("  thresholds:\n", physical))
    remember(ledger, "shop", system="7", on_server="shop")
    platform = Platform(Project.at(shop.parents[2]))
    declared = platform.declarations.get("shop")
    spool = wal.spool_of(platform, declared, "7")
    spool.mkdir(parents=True)
    names = [f"00000001000000000000000{number}" for number in (1, 2, 3)]
    for name in names:
        (spool / name).write_bytes(name.encode())
    passed = iter([0.0, wal.BRING_S - 1, wal.BRING_S + 1, 100.0, 200.0])

    assert wal.bring(platform, declared, clock=lambda: next(passed)) == tuple(names[:2])
    assert wal.bring(platform, declared, clock=lambda: next(passed)) == (names[2],)
    platform.ledger.engine.dispose()


def test_a_recovery_of_the_server_that_takes_too_long_is_an_alert_as_one_of_a_dump_is(
    shop: Path, ledger: Ledger, look: Look, tmp_path: Path
) -> None:
    backups = f"  backups: {{destination: {tmp_path / 'archive'}, physical: {{}}}}\n"
    limit = "    - {metric: recovery_time_s, critical: '> 1h', for: 0s, keep_firing_for: 0s}\n"
    shop.write_text(_SHOP.replace("  thresholds:\n", f"{backups}  thresholds:\n{limit}"))
    _backed_up(ledger, "20261101T000000Z-aaaaaa", hours_ago=2, rto=4000.0, target="0/1")
    _backed_up(ledger, "20261101T000000Z-bbbbbb", hours_ago=1, rto=10.0)
    looked = look(1)["shop"]
    assert keys(looked) == {"recovery_time_s"}
    assert looked.metrics is not None
    assert "recovery of the server to a moment" in looked.metrics.values["recovery_time_s"].detail
    _backed_up(ledger, "20261101T000000Z-cccccc", hours_ago=0.5, rto=30.0, target="0/2")
    assert keys(look(2)["shop"]) == set()


def _backed_up(ledger: Ledger, id: str, *, hours_ago: float, rto: float, target: str | None = None) -> None:
    """A complete backup and the drill that proved it, to a moment where ``target`` names one."""
    then = datetime.now(UTC) - timedelta(hours=hours_ago)
    about: dict[str, Any] = {"database": "shop", "run_id": None, "started_at": then, "finished_at": then}
    with ledger.session() as session:
        session.add(
            BackupRecord(
                id=id,
                kind="logical",
                status="complete",
                location="/x",
                taken_at=then,
                bytes=1,
                sha256="00",
                proven_at=then,
                **about,
            )
        )
        session.flush()
        session.add(
            DrillRecord(backup_id=id, status="proven", rto_seconds=rto, rpo_seconds=1.0, target=target, **about)
        )


def test_the_next_look_begins_with_those_that_waited_longest(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    for minute, name in enumerate(("b", "a", "c")):
        looks.begin(ledger, name, now + timedelta(minutes=minute))
    looks.begin(ledger, "b", now + timedelta(minutes=5))
    assert looks.longest_ago_first(ledger, ["a", "b", "c", "new"]) == ["new", "a", "c", "b"]


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, Any]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return left.value.code, json.loads(capsys.readouterr().out)


def test_the_command_line_lists_acknowledges_and_tests(
    database: Target, shop: Path, look: Look, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ("-C", str(shop.parents[2]), "alerts")
    assert typed(capsys, *project, "list", "--json") == (0, {"alerts": []})
    with psycopg.connect(database.url) as idle:
        idle.execute("select 1")
        look(0)
    code, document = typed(capsys, *project, "list", "shop", "--json")
    [alert] = document["alerts"]
    assert (code, alert["metric"], alert["state"]) == (1, "idle_in_transaction_s", "firing")
    assert {"id", "severity", "since", "value", "limit", "cause"} <= alert.keys()

    number = str(alert["id"])
    typed(capsys, *project, "ack", number, "--dry-run", "--json")
    assert typed(capsys, *project, "list", "shop", "--json")[1]["alerts"][0]["acknowledged_by"] is None
    code, document = typed(capsys, *project, "ack", number, "--json")
    assert document["alert"]["acknowledged_by"] is not None
    code, document = typed(capsys, *project, "ack", "987654", "--json")
    assert (code, document["error"]["kind"]) == (2, "unknown_alert")

    code, document = typed(capsys, *project, "test", "--json")
    assert (code, document["channels"]) == (0, [{"channel": "ALERT_URL", "delivered": True, "error": None}])
    assert receiver.titles[-1] == "[test] dbplatform"
    receiver.status = 500
    code, document = typed(capsys, *project, "test", "shop", "--json")
    assert (code, document["channels"][0]["delivered"]) == (1, False)
    shop.write_text(_SHOP.replace("  notify: [{url_env: ALERT_URL}]\n", ""))
    code, document = typed(capsys, *project, "test", "shop", "--json")
    assert (code, document["error"]["kind"]) == (2, "no_channel")


def test_the_alerts_and_metrics_of_a_database_that_is_no_longer_declared_are_closed_by_hand(
    database: Target,
    shop: Path,
    ledger: Ledger,
    look: Look,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    close = ("-C", str(shop.parents[2]), "alerts", "close", "shop", "--json")
    with psycopg.connect(database.url) as idle:
        idle.execute("select 1")
        look(0)
    code, document = typed(capsys, *close)
    assert (code, document["error"]["kind"]) == (2, "still_declared")
    shop.write_text("nonsense: [")
    assert typed(capsys, *close)[1]["error"]["kind"] == "still_declared", "nobody can read whether it is"
    shop.unlink()
    other = shop.parents[1] / "away" / "defs.yaml"
    other.parent.mkdir()
    other.write_text(_AWAY)

    planned = typed(capsys, *close, "--dry-run")
    assert len(list_alerts(ledger, "shop")) == 1
    assert typed(capsys, *close) == planned
    assert [one["metric"] for one in planned[1]["alerts"]] == ["idle_in_transaction_s"]
    assert planned[1]["metrics"]["collections"] == 1
    assert list_alerts(ledger, "shop") == ()
    assert [one.state for one in list_alerts(ledger, "shop", resolved=True)] == ["resolved"]
    assert forgetting.kept(ledger, "shop") == {}
    code, document = typed(capsys, *close)
    assert (code, document["error"]["kind"]) == (2, "nothing_to_close")
    with ledger.session() as session:
        told = session.scalars(select(Outbox.title).order_by(Outbox.id)).all()
    assert told == ["[critical] shop: idle_in_transaction_s", "[resolved] shop: idle_in_transaction_s"]

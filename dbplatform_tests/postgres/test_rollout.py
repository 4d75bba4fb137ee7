"""Migrations of many databases: canaries first, no further after a failure, and on again where it stood."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbplatform.backups.holding import held
from dbplatform.cli.side_by_side import SideBySide
from dbplatform.declaration.loading import Declared
from dbplatform.ledger.ledger import Ledger
from dbplatform.migrations.errors import FilesChanged
from dbplatform.operations import rollout, rollouts, schema
from dbplatform.operations.rollout_plan import plan_rollout
from dbplatform_tests.fleet import CHECKED, Fleet, Here, Interrupted, declared_fleet, until_asleep
from dbplatform_tests.typed import Type, typist

_NAMES = ("alpha", "beta", "gamma", "delta", "omega")


@dataclass
class Clock:
    """A time that goes on by pauses alone."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    pauses: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def fleet(tmp_path: Path, server_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    with declared_fleet(tmp_path, server_url, _NAMES) as made:
        for name, url in made.urls.items():
            monkeypatch.setenv(f"{name.upper()}_URL", url)
        monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
        monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
        yield made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of roll-outs migrate in this process: a process for each takes most of the time."""
    monkeypatch.setattr("dbplatform.cli.rollout.SideBySide", Here)


@pytest.fixture
def type_(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(fleet.folder, capsys)


def _apply(name: str) -> list[str]:
    return ["migrate", "apply", name]


def states(document: dict[str, Any]) -> dict[str, str]:
    """What became of each database."""
    return {one["database"]: one["state"] for one in document["databases"]}


def test_it_stops_at_the_first_failure_says_what_is_untouched_and_goes_on_when_it_is_mended(
    type_: Type, fleet: Fleet
) -> None:
    broken = fleet.migration("V2__own.sql", "select 1 / 0;\n", of="delta")  # alpha, beta, delta: the third by name
    planned = type_("migrate", "apply", "--all", "--dry-run", "--json").json
    assert states(planned) == dict.fromkeys(_NAMES, "untouched")
    assert type_("migrate", "rollouts", "--json").json == {"rollouts": []}
    failed = type_("migrate", "apply", "--all", "--parallel", "1", "--json")
    assert failed.code == 3
    assert "division by zero" in failed.json["error"]["message"]
    assert states(failed.json) == {
        "alpha": "done", "beta": "done", "delta": "failed", "gamma": "untouched", "omega": "untouched",
    }  # fmt: skip
    assert fleet.versions() == {"alpha": "1", "beta": "1", "gamma": None, "delta": "1", "omega": None}
    told = type_("migrate", "rollouts")
    assert "2 done, 1 failed, 2 untouched" in told.out
    broken.write_text("select 1;\n")
    again = type_("migrate", "apply", "--all", "--json").json
    assert again["rollout"] == failed.json["rollout"]
    assert (again["status"], set(states(again).values())) == ("succeeded", {"done"})
    assert fleet.versions() == {"alpha": "1", "beta": "1", "gamma": "1", "delta": "2", "omega": "1"}
    done = "select database, count(*) from ledger.operation where status = 'succeeded' group by database"
    with psycopg.connect(os.environ["DBPLATFORM_LEDGER_URL"]) as connection:
        assert dict(connection.execute(done).fetchall()) == dict.fromkeys(_NAMES, 1), "what was done is left alone"


def test_nothing_is_begun_while_a_database_cannot_be_planned_unless_it_is_left_out(
    type_: Type, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BETA_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    refused = type_("migrate", "apply", "--all")
    assert refused.code == 3
    assert "1 of 5 databases cannot be planned: beta:" in refused.err
    assert "--except beta" in refused.err
    assert set(fleet.versions().values()) == {None}
    fleet.declare("alpha", team="sales")
    rolled = type_("migrate", "apply", "--owner", "sales", "--except", "beta", "--json").json
    assert states(rolled) == {"alpha": "done"}
    nobody = type_("migrate", "apply", "--owner", "team:nobody", "--json")
    assert (nobody.code, nobody.json["error"]["kind"]) == (2, "owns_nothing")
    assert "team:data, team:sales" in nobody.json["error"]["hint"]
    stranger = type_("migrate", "apply", "--owner", "sales", "--canary", "beta", "--json")
    assert (stranger.code, stranger.json["error"]["kind"]) == (2, "not_a_canary")


def test_the_others_wait_until_the_canary_is_as_well_as_it_was(type_: Type, fleet: Fleet) -> None:
    fleet.declare("gamma", CHECKED)
    assert type_("migrate", "apply", "gamma", "--json").code == 0
    fleet.execute("gamma", "insert into item values (1, 10)")
    fleet.migration("V2__no_price.sql", "update item set price = null;\n")
    stopped = type_("migrate", "apply", "--all", "--canary", "gamma", "--json")
    assert stopped.code == 3
    assert stopped.json["error"]["kind"] == "canary_not_well"
    assert "the check item.not_null_price failed" in stopped.json["error"]["message"]
    assert states(stopped.json)["gamma"] == "failed"
    assert {name: version for name, version in fleet.versions().items() if name != "gamma"} == dict.fromkeys(
        ("alpha", "beta", "delta", "omega")
    )
    still = type_("migrate", "apply", "--all", "--json")
    assert still.json["error"]["kind"] == "canary_not_well", "its canary is remembered, and what it was like before"
    fleet.execute("gamma", "update item set price = 10")
    well = type_("migrate", "apply", "--all", "--json").json
    assert (well["rollout"], well["status"]) == (stopped.json["rollout"], "succeeded")
    [canary] = [one for one in well["databases"] if one["canary"]]
    assert (canary["database"], canary["after"]["version"], canary["after"]["pending"]) == ("gamma", "2", [])
    assert canary["proven_at"] is not None
    assert set(fleet.versions().values()) == {"2"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("breaks", "fails"), [("V2__a", "V3__b"), ("R__a", "R__b")])
def test_what_a_canary_was_like_is_kept_when_a_part_of_its_migrations_came_through(
    type_: Type, fleet: Fleet, breaks: str, fails: str
) -> None:
    fleet.declare("alpha", CHECKED)
    assert type_("migrate", "apply", "alpha", "--json").code == 0
    fleet.execute("alpha", "insert into item values (1, 10)")
    fleet.migration(f"{breaks}.sql", "update item set price = null;\n")
    mended = fleet.migration(f"{fails}.sql", "select 1 / 0;\n")
    assert type_("migrate", "apply", "--all", "--canary", "alpha", "--json").json["error"]["kind"] == "rollout_failed"
    mended.write_text("select 1;\n")
    stopped = type_("migrate", "apply", "--all", "--json").json
    assert stopped["error"]["kind"] == "canary_not_well"
    assert set(states(stopped).values()) == {"failed", "untouched"}


@pytest.mark.usefixtures("here")
def test_what_a_canary_was_like_is_kept_when_a_file_without_a_transaction_ran_in_part(
    type_: Type, fleet: Fleet
) -> None:
    fleet.declare("alpha", CHECKED)
    assert type_("migrate", "apply", "alpha", "--json").code == 0
    fleet.execute("alpha", "insert into item values (1, 10)")
    (fleet.folder / "migrations" / "V2__a.sql.conf").write_text("executeInTransaction=false\n")
    half = fleet.migration("V2__a.sql", "update item set price = null;\nselect 1 / 0;\n")
    assert type_("migrate", "apply", "--all", "--canary", "alpha", "--json").json["error"]["kind"] == "rollout_failed"
    half.write_text("update item set price = null;\nselect 1;\n")
    assert type_("migrate", "apply", "--all", "--json").json["error"]["kind"] == "canary_not_well"


@pytest.mark.usefixtures("here")
def test_a_canary_is_looked_at_anew_once_what_it_got_was_undone(type_: Type, fleet: Fleet) -> None:
    fleet.declare("alpha", CHECKED)
    assert type_("migrate", "apply", "alpha", "--json").code == 0
    fleet.execute("alpha", "insert into item values (1, 10)")
    broken = fleet.migration("V2__a.sql", "update item set price = null;\n")
    fleet.migration("U2__a.sql", "update item set price = 10;\n")
    assert type_("migrate", "apply", "--all", "--canary", "alpha", "--json").code == 3
    assert type_("migrate", "undo", "alpha", "--yes", "--json").code == 0
    fleet.execute("alpha", "insert into item values (2, null)")
    broken.write_text("select 1;\n")
    rolled = type_("migrate", "apply", "--all", "--json").json
    assert rolled["status"] == "succeeded"
    assert rolled["databases"][0]["before"]["checks"] == {"item.not_null_price": "failed"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("script", ["V2__a.sql", "R__a.sql"])
def test_what_was_applied_to_a_proven_canary_elsewhere_is_proven_before_the_others_get_it(
    type_: Type, fleet: Fleet, script: str
) -> None:
    fleet.declare("alpha", CHECKED)
    assert type_("migrate", "apply", "alpha", "--json").code == 0
    broken = fleet.migration("V1_1__own.sql", "select 1 / 0;\n", of="beta")
    failed = type_("migrate", "apply", "--all", "--canary", "alpha", "--json").json
    assert failed["databases"][0]["proven_at"] is not None
    fleet.execute("alpha", "insert into item values (1, 10)")
    fleet.migration(script, "update item set price = null;\n")
    assert type_("migrate", "apply", "alpha", "--json").code == 0
    broken.write_text("select 1;\n")
    stopped = type_("migrate", "apply", "--all", "--json").json
    assert stopped["rollout"] == failed["rollout"]
    assert stopped["error"]["kind"] == "canary_not_well"
    assert set(states(stopped).values()) == {"failed", "untouched"}


def test_a_canary_is_watched_for_as_long_as_it_soaks_and_what_failed_before_holds_nothing_up(fleet: Fleet) -> None:
    fleet.declare("alpha", CHECKED)
    platform = fleet.platform
    schema.apply(platform, platform.declared("alpha"))
    fleet.execute("alpha", "insert into item values (1, null)")
    fleet.migration("V2__note.sql", "alter table item add note text;\n")
    clock = Clock()
    databases = [platform.declared("alpha"), platform.declared("beta")]
    plan = plan_rollout(platform, databases, scope="test", canaries=["alpha"])
    assert [place.declared.name for place in plan.places] == ["alpha", "beta"]

    def migrate(these: Any, begun: Any) -> SideBySide:
        return SideBySide(platform, these, lambda name: ["migrate", "apply", name], at_once=2, begun=begun)

    rolled = rollout.roll_out(
        platform, plan, migrate=migrate, soak=timedelta(minutes=3), pause=clock.pause, now=clock.now
    )
    assert rolled.problem is None
    assert len(clock.pauses) in (3, 4)
    assert 170 < sum(clock.pauses) < 190
    [canary] = [stage for stage in rolled.record.stages if stage.canary]
    assert canary.before["checks"] == canary.after["checks"] == {"item.not_null_price": "failed"}


def test_a_canary_whose_end_nobody_saw_is_watched_for_the_whole_time(fleet: Fleet) -> None:
    platform, clock = fleet.platform, Clock()
    databases = [platform.declared("alpha"), platform.declared("beta")]

    def rolled(*, stop: bool) -> rollout.Rolled:
        def migrate(these: Sequence[Declared], begun: Callable[[str], None]) -> Here:
            return (Interrupted if stop else Here)(platform, these, _apply, begun=begun)

        plan = plan_rollout(platform, databases, scope="test", canaries=["alpha"])
        soak = timedelta(minutes=3)
        return rollout.roll_out(platform, plan, migrate=migrate, soak=soak, pause=clock.pause, now=clock.now)

    stopped = rolled(stop=True)
    assert isinstance(stopped.problem, rollout.RolloutStopped)
    assert fleet.versions()["alpha"] == "1"
    an_hour_ago = clock.at - timedelta(hours=1)  # the end of an attempt before that one
    rollouts.note(platform.ledger, stopped.record.id, "alpha", ended_at=an_hour_ago)
    assert rolled(stop=False).problem is None
    assert clock.pauses == [60.0, 60.0, 60.0]
    assert rolled(stop=False).problem is None
    assert len(clock.pauses) == 3, "with nothing to do nobody waits"


@pytest.mark.usefixtures("here")
def test_a_file_that_no_canary_had_stops_the_roll_out_before_a_database_gets_it(
    type_: Type, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def a_file_comes_behind_alpha(*, enabled: bool) -> Iterator[Callable[[str], None]]:
        def tell(line: str) -> None:
            if line.startswith("✓ alpha"):
                fleet.migration("V2__late.sql", "select 1;\n")

        yield tell

    assert type_("migrate", "apply", "gamma", "--json").code == 0
    monkeypatch.setattr("dbplatform.cli.rollout.bars", a_file_comes_behind_alpha)
    stopped = type_("migrate", "apply", "--all", "--canary", "gamma", "--parallel", "1", "--json")
    assert (stopped.code, stopped.json["error"]["kind"]) == (2, "rollout_failed")
    assert "not those that were planned" in stopped.json["error"]["message"]
    assert "the canaries first" in stopped.json["error"]["hint"]
    assert fleet.versions() == {"alpha": "1", "beta": None, "gamma": "1", "delta": None, "omega": None}
    planned = type_("migrate", "apply", "--all", "--dry-run", "--json").json["databases"]
    assert (planned[0]["database"], planned[0]["pending"]) == ("gamma", ["V2__late.sql"])


def test_files_that_change_while_a_canary_is_watched_are_not_taken_for_its_own(fleet: Fleet) -> None:
    platform, clock = fleet.platform, Clock()

    def pause(seconds: float) -> None:
        fleet.migration("V2__late.sql", "select 1;\n")
        clock.pause(seconds)

    def migrate(these: Sequence[Declared], begun: Callable[[str], None]) -> Here:
        return Here(platform, these, _apply, begun=begun)

    databases = [platform.declared("alpha"), platform.declared("beta")]
    plan = plan_rollout(platform, databases, scope="test", canaries=["alpha"])
    soak = timedelta(minutes=30)
    rolled = rollout.roll_out(platform, plan, migrate=migrate, soak=soak, pause=pause, now=clock.now)
    assert isinstance(rolled.problem, FilesChanged)
    assert [(stage.database, stage.state, stage.proven_at) for stage in rolled.record.stages] == [
        ("alpha", "done", None), ("beta", "untouched", None),
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
def test_a_canary_that_was_not_found_well_is_not_left_out_in_silence(
    type_: Type, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.migration("V2__broken.sql", "select 1 / 0;\n", of="gamma")
    assert type_("migrate", "apply", "--all", "--canary", "gamma", "--json").code == 3
    with monkeypatch.context() as unreachable:
        unreachable.setenv("GAMMA_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        unreachable.setenv("BETA_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        hint = type_("migrate", "apply", "--all", "--json").json["error"]["hint"]
    assert "begin with another one: --except gamma --canary NAME." in hint
    assert hint.endswith("left out: --except beta")
    excepted = type_("migrate", "apply", "--all", "--except", "gamma", "--json")
    assert (excepted.code, excepted.json["error"]["kind"]) == (2, "canary_left_out")
    fleet.declare("gamma", "  freeze: [{from: 2020-01-01, to: 2100-01-01, reason: history}]\n")
    frozen = type_("migrate", "apply", "--all", "--json")
    assert (frozen.code, json.loads(frozen.out)["error"]["kind"]) == (2, "canary_left_out")
    assert {name: version for name, version in fleet.versions().items() if version} == {"gamma": "1"}
    rolled = json.loads(type_("migrate", "apply", "--all", "--canary", "alpha", "--json").out)
    assert rolled["status"] == "succeeded"
    assert fleet.versions() == dict.fromkeys(_NAMES, "1")


def test_one_that_was_killed_goes_on_and_two_do_not_work_at_the_same(
    type_: Type, fleet: Fleet, server_url: str
) -> None:
    slow = fleet.migration("V2__slow.sql", "select pg_sleep(600);\n", of="beta")
    process = subprocess.Popen(
        [sys.executable, "-m", "dbplatform.cli.main", "-C", str(fleet.folder), "migrate", "apply", "--all"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with psycopg.connect(server_url, autocommit=True) as connection:
            until_asleep(connection, 1)
            twice = type_("migrate", "apply", "--all", "--json")
            assert (twice.code, twice.json["error"]["kind"]) == (2, "rollout_goes_on")
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            until_asleep(connection, 0)  # what it had begun ends with it
    finally:
        process.kill()
    [killed] = type_("migrate", "rollouts", "--json").json["rollouts"]
    assert killed["status"] == "killed"
    assert states(killed) == {
        "alpha": "done", "beta": "running", "delta": "untouched", "gamma": "untouched", "omega": "untouched",
    }  # fmt: skip
    slow.write_text("select 1;\n")
    again = type_("migrate", "apply", "--all", "--parallel", "2", "--json").json
    assert (again["rollout"], again["status"]) == (killed["rollout"], "succeeded")
    assert fleet.versions() == {"alpha": "1", "beta": "2", "gamma": "1", "delta": "1", "omega": "1"}


def test_no_more_databases_of_a_server_are_worked_on_than_one_of_them_declares(fleet: Fleet) -> None:
    fleet.declare("beta", "  runs: {per_server: 1}\n")
    platform = fleet.platform
    databases = [platform.declared(name) for name in ("alpha", "beta", "gamma")]
    with SideBySide(platform, databases, lambda name: ["migrate", "history", name], at_once=3) as processes:
        ended = list(processes)
    assert [(one.database, one.exit_code) for one in ended] == [("alpha", 0), ("beta", 0), ("gamma", 0)]
    assert all(before.ended <= after.began for before, after in pairwise(ended))
    assert all(one.peak_bytes > 10 << 20 for one in ended)


def test_a_process_that_gave_no_answer_has_failed_whatever_its_exit_code(fleet: Fleet) -> None:
    platform = fleet.platform
    with SideBySide(platform, [platform.declared("alpha")], lambda _: ["list", "--help"], at_once=1) as processes:
        [ended] = processes
    assert ended.exit_code == 3
    assert ended.error is not None
    assert ended.error["kind"] == "process_ended"
    assert "ended with code 0 and without an answer" in ended.error["message"]


@pytest.mark.usefixtures("here")
def test_what_is_left_out_is_in_the_answer_and_a_broken_declaration_in_the_exit_code(type_: Type, fleet: Fleet) -> None:
    fleet.declare("alpha", team="sales")
    fleet.declare("beta", "  nonsense: 1\n")
    fleet.declare("gamma", "  freeze: [{from: 2020-01-01, to: 2100-01-01, reason: history}]\n")
    planned = type_("migrate", "apply", "--all", "--except", "delta", "--dry-run", "--json")
    assert planned.code == 2
    assert [one["database"] for one in json.loads(planned.out)["left_out"]] == ["beta", "delta"]
    rolled = type_("migrate", "apply", "--all", "--except", "delta", "--json")
    document = json.loads(rolled.out)
    assert (rolled.code, document["status"], states(document)) == (2, "succeeded", {"alpha": "done", "omega": "done"})
    reasons = {one["database"]: one["reason"] for one in document["left_out"]}
    assert "nonsense" in reasons["beta"]
    assert reasons["gamma"].startswith("is frozen ")
    assert reasons["delta"] == "was excepted"
    told = type_("migrate", "apply", "--owner", "sales")
    assert told.code == 0, "whose the broken one is is not known"
    assert "1 done; 1 left out" in told.out
    assert type_("migrate", "apply", "--all", "--except", "beta,delta,gamma").code == 0


@pytest.mark.usefixtures("here")
def test_one_that_failed_and_was_then_excepted_is_not_failed_in_a_roll_out_that_succeeded(
    type_: Type, fleet: Fleet
) -> None:
    fleet.migration("V2__own.sql", "select 1 / 0;\n", of="delta")
    assert type_("migrate", "apply", "--all", "--json").code == 3
    rolled = json.loads(type_("migrate", "apply", "--all", "--except", "delta", "--json").out)
    assert (rolled["status"], states(rolled).pop("delta")) == ("succeeded", "untouched")
    assert rolled["left_out"] == [{"database": "delta", "reason": "was excepted"}]
    assert [one["reason"] for one in rolled["databases"] if one["reason"]] == ["left out: it was excepted"]
    assert "4 done, 1 untouched" in type_("migrate", "rollouts").out


@pytest.mark.usefixtures("here")
def test_a_database_that_is_frozen_is_left_out_and_a_held_roll_out_is_refused(
    type_: Type, fleet: Fleet, ledger: Ledger
) -> None:
    fleet.declare("beta", "  freeze: [{from: 2020-01-01, to: 2100-01-01, reason: history}]\n")
    with held(ledger, rollouts.lock_of("all", None)):
        assert type_("migrate", "apply", "--all", "--json").code == 2
    rolled = type_("migrate", "apply", "--all", "--json")
    assert "beta is frozen" in rolled.err
    assert "beta" not in states(json.loads(rolled.out))
    assert fleet.versions()["beta"] is None
    thawed = type_("migrate", "apply", "--all", "--during-freeze", "--json").json
    assert states(thawed)["beta"] == "done"

"""Archives by partition: a file for each that is due; the partition leaves once its every row is proven to be there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dbplatform import progress
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.errors import UsageError
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import archives, partitions, retirement
from dbplatform.operations.platform import Platform
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import ask, fill, flip, prove

SALE = Relation("public", "sale")
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {{url_env: SHOP_URL, environment: test}}
  partitioned_tables:
    - {{table: sale, column: at, interval: 1 month, premake: 1, start: 1 month, retain: 12 months}}
  backups: {{}}
  archives:
    - {{name: old, table: sale, {how}}}
"""
#: Two months that are due, with 100 and 50 rows; the second has its columns in another order.
TABLE = """
    create table sale (id int not null, at timestamptz not null, amount numeric, primary key (id, at))
        partition by range (at);
    create table sale_2020_01 partition of sale for values from ('2020-01-01') to ('2020-02-01');
    create table sale_2020_02 (amount numeric, at timestamptz not null, id int not null, primary key (id, at));
    alter table sale attach partition sale_2020_02 for values from ('2020-02-01') to ('2020-03-01');
    insert into sale select i, timestamptz '2020-01-01' + i * interval '1 hour', i / 7.0 from generate_series(1, 100) i;
    insert into sale select i, timestamptz '2020-02-01' + i * interval '1 hour', i / 7.0 from generate_series(1, 50) i;
"""


@pytest.fixture
def platform(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A declared database whose table has two old partitions, behind a proof of each moment."""
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setattr(archives, "proof_of", lambda *_: prove(database))
    fill(database, TABLE)
    return declare(tmp_path)


def declare(folder: Path, how: str = "by: partition") -> Platform:
    file = folder / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(DECLARATION.format(how=how))
    return Platform(Project.at(folder))


def shop(platform: Platform) -> Declared:
    return platform.declarations.get("shop")


def archive(platform: Platform) -> list[int]:
    """Archive what is due; the rows of each new file."""
    declared = shop(platform)
    report = archives.apply(platform, declared, archives.policies(declared)[0])
    return [entry.rows for entry in report.archives]


def retire(platform: Platform) -> dict[str, tuple[str, str]]:
    """Retire what is due; what became of each partition, and why."""
    [table] = retirement.apply(platform, shop(platform)).tables
    return {one.relation.name: (one.fate, one.reason) for one in table.partitions}


def planned(platform: Platform) -> dict[str, tuple[str, str]]:
    [table] = retirement.plan(platform, shop(platform)).tables
    return {one.relation.name: (one.fate, one.reason) for one in table.partitions}


def listed(platform: Platform) -> list[tuple[int, int, str]]:
    """Rows, rows that left, status of each archive, the largest first."""
    found = archives.known(platform, shop(platform))
    return sorted(((entry.rows, entry.deleted_rows, entry.status) for entry in found), reverse=True)


def first(platform: Platform) -> ArchiveEntry:
    """The archive of the first month."""
    [entry] = [entry for entry in archives.known(platform, shop(platform)) if entry.rows == 100]
    return entry


def content(target: Target) -> str:
    with connect(target, work="look") as connection:
        return catalog.content_hash(connection, SALE)


def bring_all_back(platform: Platform) -> int:
    """Make the partitions again and restore every archive that is away; the number of rows that came."""
    declared = shop(platform)
    partitions.apply(platform, declared, start="2020-01-01")
    away = [entry for entry in archives.known(platform, declared) if entry.status == "deleted"]
    return sum(archives.bring_back(platform, declared, str(entry.id)).restored for entry in away)


def test_partitions_are_written_read_back_detached_compared_and_dropped(platform: Platform, database: Target) -> None:
    before = content(database)
    assert planned(platform)["sale_2020_01"] == ("waiting", "0 of its 100 rows are archived")
    assert archives.plan(platform, shop(platform), archives.policies(shop(platform))[0]).rows == 150
    assert archive(platform) == [100, 50]
    assert (content(database), listed(platform)) == (before, [(100, 0, "verified"), (50, 0, "verified")])
    assert planned(platform)["sale_2020_01"] == ("drop", "its 100 rows are archived")
    assert archives.plan(platform, shop(platform), archives.policies(shop(platform))[0]).rows == 0
    assert retire(platform) == {
        "sale_2020_01": ("dropped", "its 100 rows are archived"),
        "sale_2020_02": ("dropped", "its 50 rows are archived"),
    }
    assert ask(database, "select to_regclass('sale_2020_01') is null and to_regclass('sale_2020_02') is null")
    assert ask(database, "select count(*) from sale") == 0
    assert listed(platform) == [(100, 100, "deleted"), (50, 50, "deleted")]
    policy = archives.policies(shop(platform))[0]
    assert archives.standing(platform, shop(platform), policy).rows == 150
    assert bring_all_back(platform) == 150
    assert content(database) == before


def test_nothing_new_is_written_for_what_is_archived(platform: Platform) -> None:
    assert archive(platform) == [100, 50]
    assert archive(platform) == []


def at(point: str, action: Callable[[], object]) -> AbstractContextManager[None]:
    """A listener that calls ``action`` the first time that the work comes to the point."""
    called: list[bool] = []

    def listen(fact: progress.Progress) -> None:
        if fact.task == point and not called:
            called.append(True)
            action()

    return progress.listening(listen)


def test_a_partition_that_got_a_row_after_its_export_waits_for_the_next(platform: Platform, database: Target) -> None:
    archive(platform)
    fill(database, "insert into sale values (999, '2020-01-20', 1)")
    assert retire(platform)["sale_2020_01"] == ("waiting", "100 of its 101 rows are archived")
    assert archive(platform) == [1]
    assert retire(platform) == {"sale_2020_01": ("dropped", "its 101 rows are archived")}


def test_a_row_that_comes_while_its_partition_is_about_to_be_detached_is_kept_and_then_archived(
    platform: Platform, database: Target
) -> None:
    archive(platform)
    with at(
        "retire public.sale_2020_01 detach",
        lambda: fill(database, "insert into sale values (999, '2020-01-20', 1)"),
    ):
        found = retire(platform)
    assert found["sale_2020_01"] == ("detached", "1 of its 101 rows are in no archive")
    assert found["sale_2020_02"][0] == "dropped"
    assert ask(database, "select count(*) from sale_2020_01") == 101
    assert archive(platform) == [1]
    assert retire(platform) == {"sale_2020_01": ("dropped", "its 101 rows are archived")}
    assert listed(platform) == [(100, 100, "deleted"), (50, 50, "deleted"), (1, 1, "deleted")]
    assert bring_all_back(platform) == 151


def test_a_row_that_changed_after_the_export_is_archived_as_it_became(platform: Platform, database: Target) -> None:
    archive(platform)
    fill(database, "update sale set amount = -1 where id = 7; delete from sale where id = 8")
    before = content(database)
    assert retire(platform)["sale_2020_01"] == ("detached", "1 of its 99 rows are in no archive")
    assert archive(platform) == [1, 1]
    assert {fate for fate, _ in retire(platform).values()} == {"dropped"}
    assert (first(platform).deleted_rows, first(platform).kept) == (98, {"changed": 2})
    assert bring_all_back(platform) == 148
    assert content(database) == before


def test_rows_that_no_proven_backup_holds_are_not_written_and_do_not_leave(
    platform: Platform, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = prove(database)
    fill(database, "insert into sale values (999, '2020-01-20', 1)")
    monkeypatch.setattr(archives, "proof_of", lambda *_: proof)
    assert archive(platform) == [100, 50]
    assert retire(platform)["sale_2020_01"] == ("waiting", "100 of its 101 rows are archived")


def test_a_partition_is_not_dropped_while_the_proof_of_its_backup_is_gone(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(platform)
    with monkeypatch.context() as gone:
        gone.setattr(archives, "proof_of", lambda *_: None)
        fate, reason = retire(platform)["sale_2020_01"]
    assert (fate, "no backup that holds them is proven" in reason) == ("detached", True)
    assert {fate for fate, _ in retire(platform).values()} == {"dropped"}


def test_rows_that_the_proof_does_not_hold_as_they_are_keep_their_partition(
    platform: Platform, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(platform)
    older = prove(database)
    fill(database, "update sale set amount = amount where id < 4 and at < '2020-02-01'")
    with monkeypatch.context() as old:
        old.setattr(archives, "proof_of", lambda *_: older)
        fate, reason = retire(platform)["sale_2020_01"]
    assert fate == "detached"
    assert reason == "3 of its 100 rows are in no archive; the proven backup backup-1 does not hold 3 of them"


def test_a_damaged_file_keeps_the_partition_and_is_named(platform: Platform, database: Target) -> None:
    archive(platform)
    file = Path(first(platform).location)
    good = file.read_bytes()
    flip(file)
    fate, reason = retire(platform)["sale_2020_01"]
    assert (fate, str(file) in reason) == ("detached", True)
    assert ask(database, "select count(*) from sale_2020_01") == 100
    file.write_bytes(good)
    assert retire(platform)["sale_2020_01"] == ("dropped", "its 100 rows are archived")


def test_a_detached_partition_whose_rows_are_in_no_archive_gets_one_once_that_is_declared(
    platform: Platform, tmp_path: Path
) -> None:
    without = declare(tmp_path, 'column: at, older_than: 1 month, where: "false"')
    assert {fate for fate, _ in retire(without).values()} == {"waiting"}
    fill(without.target(shop(without)), "alter table sale detach partition sale_2020_01")
    assert "sale_2020_01" not in retire(declare(tmp_path)), "whoever detached it keeps it"


def test_restored_rows_are_archived_anew_before_they_leave_again(platform: Platform, database: Target) -> None:
    before = content(database)
    for round in (1, 2):
        assert archive(platform) == [100, 50]
        assert {fate for fate, _ in retire(platform).values()} == {"dropped"}
        assert bring_all_back(platform) == 150, round
    assert content(database) == before
    assert [status for _, _, status in listed(platform)] == ["restored"] * 4


def test_a_table_takes_partitions_as_well_as_files_do(platform: Platform, database: Target, tmp_path: Path) -> None:
    fill(database, "create schema history")
    there = declare(tmp_path, "by: partition, to: history.sale")
    before = content(database)
    assert archive(there) == [100, 50]
    assert {fate for fate, _ in retire(there).values()} == {"dropped"}
    assert ask(database, "select count(*) from history.sale") == 150
    assert bring_all_back(there) == 150
    assert content(database) == before


#: 40 rows in a partition that is due, and one in a partition that is not.
_TIMES = """
    create table sale (at {type} not null, id int, primary key (at, id)) partition by range (at);
    create table sale_old partition of sale for values from ('2020-01-01') to ('2020-02-01');
    create table sale_now partition of sale for values from ('2020-02-01') to ('9999-01-01');
    insert into sale select '2020-01-01', i from generate_series(1, 40) i;
    insert into sale values ('2020-02-01', 1);
"""
_NUMBERS = """
    create table sale (at bigint not null, id int, primary key (at, id)) partition by range (at);
    create table sale_old partition of sale for values from (-100) to (0);
    create table sale_now partition of sale for values from (0) to (1000);
    insert into sale select -100, i from generate_series(1, 40) i;
    insert into sale values (950, 1);
"""


@pytest.mark.parametrize(
    ("script", "interval", "keep"),
    [
        (_TIMES.replace("{type}", "date"), "1 month", "12 months"),
        (_TIMES.replace("{type}", "timestamp"), "1 month", "12 months"),
        (_NUMBERS, "100", "200"),
    ],
    ids=["date", "timestamp", "numbers"],
)
def test_a_range_of_any_kind_is_archived_by_its_bounds(
    platform: Platform, database: Target, tmp_path: Path, script: str, interval: str, keep: str
) -> None:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    text = file.read_text().replace("interval: 1 month", f"interval: {interval}").replace("start: 1 month, ", "")
    file.write_text(text.replace("retain: 12 months", f"retain: {keep}"))
    there = Platform(Project.at(tmp_path))
    fill(database, f"drop table sale; {script}")
    plan = archives.plan(there, shop(there), archives.policies(shop(there))[0])
    assert (plan.rows, plan.rule.split()[0]) == (40, "where" if interval == "100" else "before")
    assert archive(there) == [40]
    assert retire(there) == {"sale_old": ("dropped", "its 40 rows are archived")}


def test_a_table_without_a_key_that_no_archive_is_declared_for_is_told_as_before(
    platform: Platform, database: Target, tmp_path: Path
) -> None:
    fill(database, "alter table sale drop constraint sale_pkey")
    with pytest.raises(UsageError, match="no primary key"):
        archive(platform)
    assert retire(platform)["sale_2020_01"] == ("waiting", "0 of its 100 rows are archived")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("by: partition, older_than: 1 month, column: at", "Leave out column, older_than and where"),
        ("by: partition, children: archive", "a partition that rows refer to cannot be detached"),
        ("by: rows", "nothing says which rows"),
        ("by: month", "by"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, how: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        shop(declare(tmp_path, how))


def test_an_archive_by_partition_needs_to_know_when_partitions_are_old(tmp_path: Path) -> None:
    declare(tmp_path)
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.write_text(file.read_text().replace(", retain: 12 months", ""))
    with pytest.raises(UsageError, match="nothing says when they are old"):
        shop(Platform(Project.at(tmp_path)))


CHILD = """
import os, signal, sys
from pathlib import Path
from dbplatform.declaration.project import Project
from dbplatform.operations import archives, retirement
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.progress import listening
from dbplatform_tests.postgres.archiving_support import prove
archives.proof_of = lambda *_: prove(Target("shop", os.environ["SHOP_URL"]))
platform = Platform(Project.at(Path(sys.argv[1])))
declared = platform.declarations.get("shop")
def heard(progress):
    if progress.task == sys.argv[2] and progress.done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
with listening(heard):
    archives.apply(platform, declared, archives.policies(declared)[0])
    retirement.apply(platform, declared)
"""


@pytest.mark.parametrize(
    ("point", "done"),
    cases(
        ("archive old begin", 0),
        ("archive old export", 100),
        ("archive old write", 0),
        ("archive old rename", 0),
        ("archive old record", 0),
        ("archive old read back", 100),
        ("archive old verify", 100),
        ("archive old verify", 50),
        ("retire public.sale_2020_01 detach", 0),
        ("retire public.sale_2020_01 detached", 0),
        ("retire public.sale_2020_01 drop", 0),
        ("retire public.sale_2020_01 leaves", 0),
        ("retire public.sale_2020_01 dropped", 0),
        ("retire public.sale_2020_02 detached", 0),
        ("retire public.sale_2020_02 dropped", 0),
        sample=["archive old rename", "retire public.sale_2020_01 leaves", "retire public.sale_2020_01 dropped"],
    ),
)
def test_killed_at_any_point_and_run_again_no_row_is_lost_or_doubled(
    platform: Platform, database: Target, tmp_path: Path, point: str, done: int
) -> None:
    before = content(database)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), point, str(done)], env=dict(os.environ), check=False
    )
    assert child.returncode == -signal.SIGKILL, "the point was not reached"
    archive(platform)
    retire(platform)
    assert ask(database, "select count(*) from sale") == 0
    assert ask(database, "select to_regclass('sale_2020_01') is null and to_regclass('sale_2020_02') is null")
    assert listed(platform) == [(100, 100, "deleted"), (50, 50, "deleted")]
    folder = Path(archives.known(platform, shop(platform))[0].location).parent
    assert len(list(folder.iterdir())) == 2, "no debris"
    assert bring_all_back(platform) == 150
    assert content(database) == before

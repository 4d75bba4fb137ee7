"""Backup, proof and restore as a person has them: by the main job, on the command line, and when a byte is wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyrage
import pytest

from dbplatform.storage import s3
from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.s3 import s3_server

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  backups:
    logical: {schedule: "0 2 * * *"}
    retain: {daily: 1, weekly: 0, monthly: 0}
    drill: {schedule: "0 5 * * 0"}
"""
_MIGRATION = """\
create table item (id int generated always as identity primary key, name text);
insert into item (name) select 'n' || g from generate_series(1, 5000) g;
"""
_ARCHIVES = """\
  archives:
    - {name: old_sales, table: sale, column: at, older_than: 30 days}
"""
_SALES = """\
create table sale (id int primary key, at timestamptz not null, cents numeric(10,2));
insert into sale select g, now() - g * interval '1 day' + interval '1 hour', g / 3.0 from generate_series(1, 100) g;
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Installation]:
    """A project whose main job ran once: it has one proven backup, and 70 rows in an archive."""
    with small_project(tmp_path, _DECLARATION + _ARCHIVES, _MIGRATION + _SALES) as installation:
        document = installation.json("run", "shop")
        assert document["steps"]["shop/restore_drill"]["proven"] is True
        assert document["steps"]["shop/restore_drill"]["RTO seconds"] > 0
        assert document["steps"]["shop/archive/old_sales"]["rows archived"] == 70
        yield installation


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def sales_of(shop: Installation) -> list[Any]:
    with shop.connect("shop") as connection:
        return connection.execute("select * from sale order by id").fetchall()


def test_the_loop_from_backup_to_restore(shop: Installation) -> None:
    [backup] = shop.here("backup", "list", "shop")["backups"]
    assert (backup["status"], bool(backup["proven_at"])) == ("complete", True)
    assert shop.here("backup", "verify", "shop")["passed"] is True

    drill = shop.here("drill", "shop")
    assert drill["proven"] is True
    assert {t["table"]: t["rows"] for t in drill["tables"]}["public.item"] == 5000

    with shop.connect("shop") as connection:
        connection.execute("delete from item where id > 10")
    assert shop.here("restore", "shop", "--into", "copy", "--dry-run")["backup_id"] == backup["id"]
    assert shop.here("restore", "shop", "--into", "copy")["name"] == "copy"
    with shop.connect("copy") as connection:
        assert connection.execute("select count(*) from item").fetchone() == (5000,)

    again = shop.here("restore", "shop", "--into", "copy", exit_code=2)
    assert "exists" in again["error"]["message"]
    unasked = shop.here("restore", "shop", "--replace", "shop", exit_code=2)
    assert "--yes" in unasked["error"]["hint"]
    assert shop.here("restore", "shop", "--replace", "shop", "--yes")["replaced"] is True
    with shop.connect("shop") as connection:
        assert connection.execute("select count(*) from item").fetchone() == (5000,)

    newer = shop.here("backup", "create", "shop")
    planned = shop.here("backup", "prune", "shop", "--dry-run")
    assert [kept["id"] for kept in planned["keep"]] == [newer["id"], backup["id"]], "the newest proven one stays"
    assert shop.here("drill", "shop")["backup_id"] == newer["id"]
    assert shop.here("backup", "prune", "shop", "--yes")["pruned"] == [backup["id"]]
    assert [b["id"] for b in shop.here("backup", "list", "shop")["backups"]] == [newer["id"]]


def test_one_wrong_byte_is_found_and_nothing_builds_on_it(shop: Installation) -> None:
    [backup] = shop.here("backup", "list", "shop")["backups"]
    data = max(Path(backup["location"]).rglob("*.dat*"), key=lambda file: file.stat().st_size)
    flip(data)
    for when in ("before it is known", "afterwards"):
        assert shop.here("backup", "prune", "shop", exit_code=1)["refusal"], when
        assert shop.here("archive", "apply", "shop", exit_code=3)["error"]["kind"] == "not_proven", when
        if when == "before it is known":
            _verify_and_drill_name(shop, data)
    assert data.exists()
    failed = shop.json("run", "shop", "--job", "shop_drill", exit_code=3)
    assert data.name in failed["error"]["message"]

    [archive] = shop.here("archive", "list", "shop")["archives"]
    flip(Path(archive["location"]))
    lost = shop.json("run", "shop", exit_code=3)["error"]["message"]
    assert "70 rows of public.sale were archived" in lost
    assert archive["location"] in lost
    assert archive["backup_id"] in lost, "where the rows are, too"


def _verify_and_drill_name(shop: Installation, data: Path) -> None:
    verified = shop.here("backup", "verify", "shop", exit_code=1)
    assert data.name in str(verified["problems"])
    drill = shop.here("drill", "shop", exit_code=1)
    assert drill["proven"] is False
    assert data.name in str(drill["errors"])
    [listed] = shop.here("backup", "list", "shop")["backups"]
    assert listed["proven_at"] is None


def test_old_rows_leave_behind_a_proven_backup_and_come_back(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION + _ARCHIVES, _SALES) as shop:
        shop.here("migrate", "apply", "shop")
        with shop.connect("shop") as connection:
            before = connection.execute("select * from sale order by id").fetchall()
        unproven = shop.here("archive", "apply", "shop", exit_code=3)["error"]
        assert unproven["kind"] == "not_proven"
        assert "dbplatform drill shop" in unproven["hint"]

        done = shop.json("run", "shop")["steps"]["shop/archive/old_sales"]
        assert done["rows archived"] == 70
        with shop.connect("shop") as connection:
            assert connection.execute("select count(*), min(id), max(id) from sale").fetchone() == (30, 1, 30)
            connection.execute(
                "insert into sale select g, now() - g * interval '1 day', 1 from generate_series(200, 201) g"
            )
        planned = shop.here("archive", "plan", "shop")["archives"][0]
        assert (planned["rows"], planned["covered_rows"]) == (2, 0), "the proven backup does not hold the new rows"
        assert shop.here("archive", "apply", "shop")["archives"][0]["uncovered"] == 2

        [archive] = shop.here("archive", "list", "shop")["archives"]
        assert (archive["rows"], archive["status"]) == (70, "deleted")
        assert shop.command("archive", "verify", "shop", archive["id"]).returncode == 0
        refused = shop.here("archive", "restore", "shop", archive["id"], exit_code=2)
        assert "--yes" in refused["error"]["hint"]
        shop.here("archive", "restore", "shop", archive["id"], "--yes")
        with shop.connect("shop") as connection:
            assert connection.execute("select * from sale where id < 200 order by id").fetchall() == before
        again = shop.command("archive", "restore", "shop", archive["id"], "--yes")
        words = "public.sale: 0 rows restored; 70 were there, 0 had never left, 0 were erased since"
        assert again.stdout.strip() == words, again.stderr


def test_a_file_damaged_or_a_row_updated_between_export_and_delete_deletes_only_what_is_kept(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION + _ARCHIVES, _SALES) as shop:
        for words in (("migrate", "apply"), ("backup", "create"), ("drill",)):
            shop.here(*words, "shop")
        before = sales_of(shop)
        killed = shop.command(
            "archive old_sales record", "0", "archive", "apply", "shop", module="dbplatform_tests.drills.killed_run"
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        [archive] = shop.here("archive", "list", "shop")["archives"]
        assert (archive["rows"], archive["status"]) == (70, "exported")

        flip(Path(archive["location"]))
        error = shop.here("archive", "apply", "shop", exit_code=3)["error"]
        assert (error["kind"], archive["location"] in error["message"]) == ("archive_damaged", True)
        assert shop.here("archive", "verify", "shop", archive["id"], exit_code=1)["problem"]
        [every] = shop.here("archive", "verify", "shop", exit_code=1)["archives"]
        assert (every["id"], every["status"]) == (archive["id"], "failed")
        assert (sales_of(shop), len(before)) == (before, 100)

        flip(Path(archive["location"]))
        with shop.connect("shop") as connection:
            connection.execute("update sale set cents = 0 where id = 50")
        applied = shop.command("archive", "apply", "shop")
        assert applied.returncode == 0, applied.stderr
        assert "69 rows archived; 1 changed meanwhile" in applied.stdout
        assert [row[0] for row in sales_of(shop)] == [*range(1, 31), 50]
        [archive] = shop.here("archive", "list", "shop")["archives"]
        assert (archive["rows"], archive["deleted_rows"], archive["kept"]) == (70, 69, {"changed": 1})


def test_archives_without_backups_are_refused_by_line(tmp_path: Path) -> None:
    declaration = _DECLARATION.split("  backups:")[0] + _ARCHIVES
    with small_project(tmp_path, declaration, _SALES) as shop:
        error = shop.here("archive", "plan", "shop", exit_code=2)["error"]
    assert "archives need backups" in error["message"]


def test_a_database_without_backups_says_where_to_declare_them(tmp_path: Path) -> None:
    declaration = _DECLARATION.split("  backups:")[0]
    with small_project(tmp_path, declaration, _MIGRATION) as shop:
        error = shop.here("backup", "create", "shop", exit_code=2)["error"]
    assert (error["kind"], error["file"], error["line"]) == ("not_declared", "defs/shop/defs.yaml", 2)
    assert "backups" in error["hint"]


def test_the_backup_job_removes_old_backups_behind_the_proof_alone(shop: Installation) -> None:
    [first] = shop.here("backup", "list", "shop")["backups"]
    found = shop.json("run", "shop", "--job", "shop_backup")["steps"]["shop/backup_retention"]
    assert (found["removed"], found["kept"], found["removed backups"]) == (1, 1, first["id"])
    [second] = shop.here("backup", "list", "shop")["backups"]
    assert (second["id"] != first["id"], bool(second["proven_at"])) == (True, True)


def test_a_backup_is_encrypted_listed_without_its_ledger_and_one_table_comes_back(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "key.txt"
    key.write_text(f"{identity}\n")
    declaration = _DECLARATION.replace("  backups:\n", f'  backups:\n    encrypt_to: ["{identity.to_public()}"]\n')
    with small_project(tmp_path, declaration, _MIGRATION) as shop:
        shop.here("migrate", "apply", "shop")
        made = shop.here("backup", "create", "shop")
        assert shop.here("backup", "verify", "shop")["inside"] is False
        refused = shop.here("drill", "shop", exit_code=2)["error"]
        assert refused["kind"] == "key_missing"
        shop.variables["DBPLATFORM_AGE_IDENTITY_FILE"] = str(key)
        assert shop.here("drill", "shop")["proven"] is True
        assert shop.here("backup", "verify", "shop")["inside"] is True

        with shop.connect("dbplatform_ledger") as connection:
            connection.execute("delete from ledger.drill")
            connection.execute("delete from ledger.backup")
        [listed] = shop.here("backup", "list", "shop")["backups"]
        assert (listed["id"], bool(listed["proven_at"]), listed["sha256"]) == (made["id"], True, made["sha256"])

        with shop.connect("shop") as connection:
            connection.execute("drop table item")
        assert shop.here("restore", "shop", "--table", "item", "--dry-run")["backup_id"] == made["id"]
        assert shop.here("restore", "shop", "--table", "item")["rows"] == 5000
        again = shop.here("restore", "shop", "--table", "item", exit_code=2)["error"]
        assert "--aside restored_item" in again["hint"]
        assert shop.here("restore", "shop", "--table", "item", "--aside", "old")["restored"] == "old.item"

        part = shop.here("backup", "create", "shop", "--only", "schema")
        assert part["scope"] == "schema"
        assert shop.here("restore", "shop", "--into", "x", "--dry-run")["backup_id"] == made["id"]
        shop.command("backup", "roles", "shop", made["id"], "--to", str(tmp_path / "roles.sql"))
        assert "CREATE ROLE" in (tmp_path / "roles.sql").read_text()


@pytest.mark.drill
def test_the_backup_job_works_with_a_bucket_as_with_a_folder(tmp_path: Path) -> None:
    declaration = _DECLARATION.replace("  backups:\n", "  backups:\n    destination: s3://shop-backups/here\n")
    with s3_server() as endpoint, small_project(tmp_path, declaration, _MIGRATION) as shop:
        shop.variables.update(
            AWS_ENDPOINT_URL_S3=endpoint,
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_DEFAULT_REGION="us-east-1",
        )
        shop.here("migrate", "apply", "shop")
        refused = shop.here("backup", "create", "shop", exit_code=3)["error"]
        assert "NoSuchBucket" in refused["message"]
        with mock.patch.dict(os.environ, shop.variables):
            s3.client().create_bucket(Bucket="shop-backups")

        steps = shop.json("run", "shop", "--job", "shop_backup")["steps"]
        [newest] = shop.here("backup", "list", "shop")["backups"]
        removed = steps["shop/backup_retention"]["removed"]
        assert removed == 1, "the dump that waited went up first, and was one too many for the day"
        assert steps["shop/backup"]["folder"] == newest["location"] == f"s3://shop-backups/here/shop/{newest['id']}"
        assert steps["shop/restore_drill"]["proven"] is True
        assert shop.here("backup", "verify", "shop")["passed"] is True
        assert shop.here("restore", "shop", "--into", "copy")["name"] == "copy"
        with shop.connect("copy") as connection:
            assert connection.execute("select count(*) from item").fetchone() == (5000,)

"""The runbooks are followed word for word, after what they are for has happened."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyrage
import pytest

from dbplatform_tests.docs.test_tutorial import differences
from dbplatform_tests.installation import REPOSITORY, Installation, small_project

RUNBOOKS = REPOSITORY / "docs" / "runbooks"
_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {allow_destructive: true}
  backups: {}
"""
_MIGRATION = """\
create table item (id int generated always as identity primary key, name text);
insert into item (name) select 'n' || g from generate_series(1, 5000) g;
"""


def follow(page: str, shop: Installation, **replaced: str) -> list[str]:
    """What on the page failed, or was shown and not said, in a shell of its own in the project."""
    words = {**replaced, "dbplatform ": f"DBPLATFORM_HOME={shop.home.root} dbplatform "}
    return differences(RUNBOOKS / page, shop.folder, words, root=str(shop.folder))


def made(shop: Installation) -> str:
    """The id of a proven backup of the database, just made."""
    shop.here("migrate", "apply", "shop")
    backup = shop.here("backup", "create", "shop")
    assert shop.here("drill", "shop")["proven"] is True
    return str(backup["id"])


def test_after_a_dropped_table_and_lost_rows(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        proven = made(shop)
        with shop.connect("shop") as connection:
            before = connection.execute("select * from item order by id").fetchall()
            connection.execute("drop table item")
        # The newest backup knows the table no more.
        shop.here("backup", "create", "shop")
        # Between the two parts of the page, rows are lost, and others are spoiled.
        spoil = "delete from item where id <= 40; update item set name = $$wrong$$ where id in (41, 42, 4000)"
        shown = "20261122T074011Z-5c0f3d7e"
        page = f"dbplatform restore shop --backup {shown} --table public.item --aside"
        harm = f"psql \"$(dbplatform server url shop)\" -c '{spoil}'; {page}"
        assert follow("dropped-table.md", shop, **{page: harm, shown: proven}) == []
        with shop.connect("shop") as connection:
            assert connection.execute("select * from item order by id").fetchall() == before


@pytest.mark.drill
def test_after_a_migration_that_did_harm(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        before = made(shop)
        folder = tmp_path / "defs" / "shop" / "migrations"
        (folder / "V2__no_names.sql").write_text("alter table item drop column name;\n")
        (folder / "U2__no_names.sql").write_text("alter table item add column name text;\n")
        shop.here("migrate", "apply", "shop")
        shown = "20261122T074011Z-5c0f3d7e"
        assert follow("bad-migration.md", shop, **{shown: before}) == []
        with shop.connect("shop") as connection:
            assert connection.execute("select count(*) from item where name = 'n' || id").fetchone() == (5000,)


@pytest.mark.drill
def test_after_a_lost_key(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(f"{identity}\n")
    declaration = _DECLARATION.replace("backups: {}", f'backups:\n    encrypt_to: ["{identity.to_public()}"]')
    with small_project(tmp_path, declaration, _MIGRATION) as shop:
        shop.variables["DBPLATFORM_AGE_IDENTITY_FILE"] = str(tmp_path / "key.txt")
        made(shop)
        assert follow("lost-key.md", shop) == []
        recipients = (tmp_path / "recipient.txt").read_text().split()
        for key in ("new-key.txt", "safe-key.txt"):
            shop.variables["DBPLATFORM_AGE_IDENTITY_FILE"] = str(tmp_path / key)
            assert shop.here("drill", "shop")["proven"] is True
            assert (tmp_path / key).stat().st_mode & 0o777 == 0o600
        assert all(recipient.startswith("age1") for recipient in recipients)


def git(folder: Path, *arguments: str) -> None:
    """What a person does with git there, in a repository of the folder's own."""
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def released(folder: Path, files: dict[Path, str]) -> None:
    """A repository of the folder's ``defs``, whose newest commit is a release of these files."""
    for words in (["init"], ["config", "user.name", "you"], ["config", "user.email", "you@example.org"]):
        git(folder, *words)
    git(folder, "add", "defs")
    git(folder, "commit", "--message", "before")
    for file, text in files.items():
        file.write_text(text)
    git(folder, "add", "defs")
    git(folder, "commit", "--message", "the new version")


@pytest.mark.drill
def test_after_a_release_that_was_bad(tmp_path: Path) -> None:
    declaration = f"{_DECLARATION}  quality:\n    - {{table: item, checks: [not_null: name]}}\n"
    with small_project(tmp_path, declaration, _MIGRATION) as shop:
        shop.here("migrate", "apply", "shop")
        folder = tmp_path / "defs" / "shop" / "migrations"
        new, undo = "alter table item rename name to title;\n", "alter table item rename title to name;\n"
        released(tmp_path, {folder / "V2__title.sql": new, folder / "U2__title.sql": undo})
        # Between the two ways back the version comes once more, and does harm to the rows, too.
        harm = (
            "git revert --no-edit HEAD; dbplatform migrate apply shop; "
            'psql "$(dbplatform server url shop)" -c "update item set title = null"; dbplatform restore'
        )
        assert follow("rollback.md", shop, **{"dbplatform restore": harm}) == []
        with shop.connect("shop") as connection:
            assert connection.execute("select count(*) from item where name = 'n' || id").fetchone() == (5000,)
        assert not (folder / "V2__title.sql").exists()

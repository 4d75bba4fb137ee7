"""The access review on a real server: each right that somebody has, who uses a login, what is new since a review."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.monitoring import collect
from dbplatform.monitoring.audits import access
from dbplatform.monitoring.audits.access import Access
from dbplatform.postgres.connection import Target
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.typed import Type

PASSWORD = "secret-word"
SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  roles: {}
"""


@pytest.fixture
def clerk(database: Target) -> Iterator[str]:
    """A role that can log in, with a group of the same name and ``s`` behind; nothing was granted yet."""
    name = f"clerk_{uuid.uuid4().hex[:8]}"
    by_hand(
        database, f"create role {name} login password '{PASSWORD}' valid until '2100-01-01'", f"create role {name}s"
    )
    yield name
    for role in (name, f"{name}s"):
        by_hand(database, f"drop owned by {role} cascade", f"drop role {role}")


def reviewed(target: Target) -> Access:
    with collect.session(target) as connection:
        return access.review(connection, database="shop", now=datetime.now(UTC))


def one_of(found: Access, role: str) -> Any:
    (row,) = [row for row in found.roles if row["role"] == role]
    return row


def granted(found: Access, role: str) -> list[tuple[str, list[str], list[str]]]:
    return [(row["kind"], row["privileges"], row["objects"]) for row in found.grants if row["role"] == role]


def test_each_right_of_a_role_is_told_once_with_its_objects_and_those_that_later_ones_bring(
    database: Target, clerk: str
) -> None:
    by_hand(
        database,
        "create table a (id int, name text)",
        "create table b (id int)",
        "create sequence numbers",
        "create table visit (at date) partition by range (at)",
        "create table visit_1 partition of visit for values from ('2026-01-01') to ('2026-02-01')",
        "create table visit_2 partition of visit for values from ('2026-02-01') to ('2026-03-01')",
        "create function priced(int) returns int language sql as 'select 1'",
        f"grant select, insert on a, b, visit, visit_1 to {clerk}s",
        f"grant select on visit_2 to {clerk}s",
        f"grant update (name) on a to {clerk}s with grant option",
        f"grant usage on sequence numbers to {clerk}s",
        f"grant execute on function priced to {clerk}s",
        f"grant usage on schema public to {clerk}s",
        f"alter default privileges in schema public grant select on tables to {clerk}s",
        f"grant {clerk}s to {clerk} with admin option",
    )
    found = reviewed(database)
    (owner,) = [row["role"] for row in found.roles if row["superuser"] and row["owns"]]
    assert granted(found, f"{clerk}s") == [
        ("column", ["UPDATE WITH GRANT OPTION"], ["public.a.name"]),
        ("later tables", ["SELECT"], [f"in public, made by {owner}"]),
        ("routine", ["EXECUTE"], ["public.priced(integer)"]),
        ("schema", ["USAGE"], ["public"]),
        ("sequence", ["USAGE"], ["public.numbers"]),
        ("table", ["INSERT", "SELECT"], ["public.a", "public.b", "public.visit"]),
        ("table", ["SELECT"], ["public.visit_2"]),
    ], "the partition whose rights are those of its table is not told apart"
    assert granted(found, owner) == [], "an owner has all rights anyway"
    assert ("database", ["CONNECT", "TEMPORARY"], [database.name]) in granted(found, "PUBLIC")
    assert (one_of(found, clerk)["admin_of"], one_of(found, f"{clerk}s")["members"]) == ([f"{clerk}s"], [clerk])
    assert {
        f"{clerk}: may log in here",
        f"{clerk}: member of {clerk}s",
        f"{clerk}: may make others members of {clerk}s",
        f"{clerk}s: INSERT on table public.b",
        f"{owner}: owner of table public.b",
        f"{owner}: owner of sequence public.numbers",
    } <= set(found.rights)


def test_a_role_that_nobody_has_and_that_owns_tables_is_told(database: Target, clerk: str) -> None:
    by_hand(database, "create table a (id int)")
    assert [row for row in reviewed(database).roles if row["role"] == f"{clerk}s"] == []
    by_hand(database, f"alter table a owner to {clerk}s")
    found = reviewed(database)
    assert (one_of(found, f"{clerk}s")["owns"], one_of(found, f"{clerk}s")["used"]) == (1, None)
    assert f"{clerk}s: owner of table public.a" in found.rights


def test_whose_an_object_is_is_a_right_and_another_owner_is_told(database: Target, clerk: str) -> None:
    by_hand(
        database,
        "create table a (id int generated always as identity)",
        "create table part (at date) partition by range (at)",
        "create table part_1 partition of part for values from ('2026-01-01') to ('2026-02-01')",
        "create view shown as select 1 as one",
        "create function priced(int) returns int language sql as 'select 1'",
        "create schema ware",
        "create extension pg_stat_statements",
    )
    before = reviewed(database)
    (owner,) = [row["role"] for row in before.roles if row["superuser"] and row["owns"]]
    of_owner = {(one["kind"], *one["objects"]) for one in before.owned if one["role"] == owner}
    assert of_owner == {
        ("database", database.name),
        ("routine", "public.priced(integer)"),
        ("schema", "ware"),
        ("table", "public.a", "public.part"),
        ("view", "public.shown"),
    }, "not its own sequence, a partition of the same owner, and what an extension brought"
    by_hand(
        database,
        f"alter table a owner to {clerk}",
        f"alter table part_1 owner to {clerk}",
        f"alter view shown owner to {clerk}",
        f"alter function priced owner to {clerk}",
        f"alter schema ware owner to {clerk}",
    )
    after = reviewed(database)
    assert sorted(set(after.rights) - set(before.rights)) == [
        f"{clerk}: owner of routine public.priced(integer)",
        f"{clerk}: owner of schema ware",
        f"{clerk}: owner of table public.a",
        f"{clerk}: owner of table public.part_1",
        f"{clerk}: owner of view public.shown",
    ]
    assert f"{owner}: owner of table public.a" not in after.rights


def test_a_login_that_nobody_uses_is_told_and_what_is_not_known_is_not_called_unused(
    database: Target, clerk: str
) -> None:
    unknown = reviewed(database)
    assert "pg_stat_statements" in unknown.not_examined["statements"]
    assert (one_of(unknown, clerk)["used"], clerk in unknown.unused) == (None, False)

    by_hand(database, "create extension pg_stat_statements", "select pg_stat_statements_reset()")
    found = reviewed(database)
    assert (one_of(found, clerk)["statements"], one_of(found, clerk)["used"], clerk in found.unused) == (0, False, True)
    assert found.counted_since is not None

    with psycopg.connect(database.url, user=clerk, password=PASSWORD):
        assert (one_of(reviewed(database), clerk)["sessions"], one_of(reviewed(database), clerk)["used"]) == (1, True)
    by_hand(Target("shop", make_conninfo(database.url, user=clerk, password=PASSWORD)), "select 1")
    assert (one_of(reviewed(database), clerk)["statements"], one_of(reviewed(database), clerk)["used"]) == (1, True)


def test_how_a_password_is_kept_and_that_it_is_as_old_as_the_last_change_of_its_role_is_told(
    database: Target, clerk: str
) -> None:
    found = reviewed(database)
    kept = one_of(found, clerk)
    assert kept["password"] == "scram-sha-256"
    assert kept["valid_until"] == datetime(2100, 1, 1, tzinfo=kept["valid_until"].tzinfo)
    assert "SCRAM" not in str(found.as_json())
    by_hand(database, f"alter role {clerk} password '{PASSWORD}'")
    changed = one_of(reviewed(database), clerk)["unchanged_since"]
    assert kept["unchanged_since"] < changed == one_of(reviewed(database), clerk)["unchanged_since"]


def test_what_only_a_superuser_may_see_is_not_examined_for_others(database: Target, clerk: str) -> None:
    asked = reviewed(Target("shop", make_conninfo(database.url, user=clerk, password=PASSWORD)))
    assert "superusers alone" in asked.not_examined["passwords"]
    assert one_of(asked, clerk)["password"] is None
    assert ("database", ["CONNECT", "TEMPORARY"], [database.name]) in granted(asked, "PUBLIC")


def test_a_review_is_noted_by_whom_and_the_next_one_tells_what_is_new_since(
    declare_shop: Callable[[str], Type], database: Target, clerk: str
) -> None:
    type_ = declare_shop(SHOP)
    first = type_("roles", "review", "shop")
    assert first.code == 1
    assert "nobody has reviewed it yet" in first.out
    assert type_("roles", "review", "shop", "--comment", "as it should be", "--dry-run").code == 1
    noted = type_("roles", "review", "shop", "--comment", "as it should be", "--by", "ada", "--yes", "--json")
    assert (noted.code, noted.json["last_review"]["by"], noted.json["gained"], noted.json["lost"]) == (0, "ada", [], [])
    assert "as in the review of" in type_("roles", "review", "shop").out

    by_hand(database, "create table salary (id int)", f"grant select on salary to {clerk}")
    grown = type_("roles", "review", "shop", "--json")
    assert (grown.code, f"{clerk}: SELECT on table public.salary" in grown.json["gained"]) == (1, True)
    assert type_("roles", "review", "shop", "--comment", "he pays", "--by", "ada", "--yes").code == 0
    by_hand(database, f"revoke all on salary from {clerk}")
    shown = type_("roles", "review", "shop")
    assert (shown.code, f"- {clerk}: SELECT on table public.salary" in shown.out) == (1, True)

    acts = type_("audit", "list", "shop", "--json").json["changes"]
    assert [(act["act"], act["subject"], act["details"]["comment"]) for act in acts] == [
        ("review access", "ada", "he pays"),
        ("review access", "ada", "as it should be"),
    ]


@pytest.mark.parametrize(("bound", "what"), [("MOST_RIGHTS", "grants"), ("MOST_ROLES", "roles")])
def test_what_could_not_be_read_whole_cannot_be_reviewed_and_is_no_right_that_was_lost(
    declare_shop: Callable[[str], Type], clerk: str, monkeypatch: pytest.MonkeyPatch, bound: str, what: str
) -> None:
    type_ = declare_shop(SHOP)
    with monkeypatch.context() as fewer:
        fewer.setattr(access, bound, 1)
        refused = type_("roles", "review", "shop", "--comment", "as it should be", "--json")
        assert (refused.code, refused.json["error"]["kind"]) == (3, "not_read")
        assert f"{what}: there are more than 1" in refused.json["error"]["message"]
        assert type_("roles", "review", "shop", "--json").json["last_review"] is None
    assert type_("roles", "review", "shop", "--comment", "as it should be", "--yes").code == 0
    with monkeypatch.context() as fewer:
        fewer.setattr(access, bound, 1)
        unread = type_("roles", "review", "shop", "--json")
        assert (unread.code, unread.json["gained"], unread.json["lost"]) == (1, [], [])
        assert unread.json["not_examined"][what].startswith("there are more than 1")
        assert "what is new is not known" in type_("roles", "review", "shop").out
    assert type_("roles", "review", "shop").code == 0


def test_thousands_of_rights_are_reviewed_each_and_kept_once_for_each_object(
    declare_shop: Callable[[str], Type], database: Target, clerk: str
) -> None:
    columns = [f"column_{number}" for number in range(1_500)]
    by_hand(
        database,
        f"create table wide ({', '.join(f'{name} int' for name in columns)})",
        f"grant all ({', '.join(columns)}) on wide to {clerk}",
    )
    type_ = declare_shop(SHOP)
    assert type_("roles", "review", "shop", "--comment", "as it should be", "--yes").code == 0
    by_hand(database, f"revoke insert (column_77) on wide from {clerk}")
    later = type_("roles", "review", "shop", "--json")
    assert (later.code, later.json["gained"]) == (1, [])
    assert later.json["lost"] == [f"{clerk}: INSERT on column public.wide.column_77"]
    found = reviewed(database)
    assert len(found.rights) > 4 * 1_500 - 1
    assert len(json.dumps(found.kept)) < len(json.dumps(found.rights)) / 4


def test_reviews_that_have_kept_their_rights_in_words_are_compared_still() -> None:
    assert access.in_words({"comment": "fine", "rights": ["ada: may log in here"]}) == {"ada: may log in here"}


def test_what_is_other_is_shown_and_asked_about_before_anybody_is_said_to_have_reviewed_it(
    declare_shop: Callable[[str], Type], database: Target, clerk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_ = declare_shop(SHOP)
    review = ("roles", "review", "shop", "--comment", "as it should be", "--by", "ada")
    unasked = type_(*review, "--json")
    assert (unasked.code, unasked.json["error"]["kind"]) == (2, "not_confirmed")
    assert f"+ {clerk}: may log in here" in unasked.err
    assert type_("roles", "review", "shop", "--json").json["last_review"] is None
    first = type_(*review, "--yes")
    assert (first.code, f"+ {clerk}: may log in here" in first.err) == (0, True), "tables cut long lists short"
    assert type_(*review).code == 0, "nothing is other: nothing is asked"

    right = f"{clerk}: SELECT on table public.salary"
    by_hand(database, "create table salary (id int)", f"grant select on salary to {clerk}")
    answers, asked = [False, True], list[str]()

    def answer(question: str, *, err: bool) -> bool:
        asked.append(question)
        return answers.pop(0)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", answer)
    for code in (2, 0):
        typed = type_(*review)
        assert (typed.code, f"+ {right}" in typed.out) == (code, True)
    assert asked == ["Note that ada has read what is other: 2 rights gained, 0 lost?"] * 2, "its owner's, too"
    assert type_("roles", "review", "shop").code == 0


def test_an_empty_comment_is_no_review(declare_shop: Callable[[str], Type]) -> None:
    type_ = declare_shop(SHOP)
    assert type_("roles", "review", "shop", "--comment", " ", "--json").json["error"]["kind"] == "no_review"
    assert type_("roles", "review", "shop", "--json").json["last_review"] is None


def test_the_report_of_the_month_asks_for_a_review_where_roles_are_declared(
    declare_shop: Callable[[str], Type],
) -> None:
    type_ = declare_shop(SHOP)
    command = "dbplatform roles review shop --comment TEXT"
    asked = type_("report", "maintenance", "shop", "--json").json["decisions"]
    assert [one["why"] for one in asked if one["command"] == command] == ["Nobody has reviewed it yet."]
    assert type_("roles", "review", "shop", "--comment", "as it should be", "--yes").code == 0
    later = type_("report", "maintenance", "shop", "--json").json["decisions"]
    assert [one for one in later if one["command"] == command] == []

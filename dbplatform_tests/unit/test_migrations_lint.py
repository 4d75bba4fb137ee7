"""Lint by the real squawk: findings with their places, what accepts them, and what counts at all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dbplatform.errors import UsageError
from dbplatform.migrations.errors import LintCouldNotRun, ScriptError, UnknownRule
from dbplatform.migrations.files import discover
from dbplatform.migrations.lint import squawk
from dbplatform.migrations.lint.engine import Finding, lint_files
from dbplatform.migrations.lint.rules import LEFT_OUT, OF_EXISTING_ROWS, RULES, SAFETY, TASTE
from dbplatform.migrations.policy import AcceptedFinding, LintPolicy, MigrationPolicy

Lint = Callable[..., list[Finding]]

INDEX = "create index item_price on item (price);\n"
RULE = "require-concurrent-index-creation"


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    """Lint files given as name and text; what the policy accepts in vain is kept in ``lint.idle``."""

    def linted(files: dict[str, str], policy: MigrationPolicy | None = None) -> list[Finding]:
        for name, text in files.items():
            (tmp_path / name).write_bytes(text.encode())
        findings, _ = lint_files(discover(tmp_path), policy or MigrationPolicy(), None, shown=lambda path: path.name)
        return findings

    return linted


def places(findings: list[Finding]) -> list[tuple[str, int, int, str, str]]:
    return [(f.file, f.line, f.column, f.rule, f.status) for f in findings]


def test_findings_of_many_files_have_file_line_and_column(lint: Lint) -> None:
    found = lint(
        {
            "V1__item.sql": "create table item (id bigint primary key, price bigint);\n",
            "V2__index.sql": f"-- prices are asked for\n\n{INDEX}",
            "V10__shop.sql": "select 1;\nalter table item add shop bigint not null;\n",
        }
    )
    assert places(found) == [
        ("V2__index.sql", 3, 1, RULE, "open"),
        ("V10__shop.sql", 2, 18, "adding-required-field", "open"),
    ]
    assert (found[0].level, found[0].help) == ("warning", "Use `concurrently` to avoid blocking writes.")
    assert "updates are blocked" in found[0].message


def test_lines_are_right_with_every_line_end_with_placeholders_and_characters_of_many_bytes(lint: Lint) -> None:
    policy = MigrationPolicy(placeholders={"words": "one\ntwo\nthree"})
    found = lint(
        {
            "V1__crlf.sql": f"\ufeff-- ${{words}}\r\n\r\nselect 'ü';\r\n{INDEX}",
            "V2__cr.sql": f"-- a\r-- b\r{INDEX}",
            "V3__wide.sql": "select 'é€😀'; drop index item_price;\n",
        },
        policy,
    )
    assert places(found) == [
        ("V1__crlf.sql", 4, 1, RULE, "open"),
        ("V2__cr.sql", 3, 1, RULE, "open"),
        ("V3__wide.sql", 1, 15, "require-concurrent-index-deletion", "open"),
    ]


def test_a_file_is_judged_in_the_form_in_which_it_runs(lint: Lint) -> None:
    """Placeholders are replaced, what cannot have a transaction is not judged as if it had one, COPY data is no SQL."""
    policy = MigrationPolicy(placeholders={"how": "concurrently"})
    found = lint(
        {
            "V1__index.sql": "create index ${how} item_price on item (price);\n",
            "V2__data.sql": "copy item from stdin;\n1\tit's, a\n\\.\ncopy item from stdin (format csv);\n\\.\n" + INDEX,
            "V3__not_valid.sql": "alter table item add check (price > 0) not valid;\n",
        },
        policy,
    )
    assert places(found) == [("V2__data.sql", 6, 1, RULE, "open")]


def test_a_line_that_is_not_sql_is_one_finding(lint: Lint) -> None:
    found = lint({"V1__typo.sql": "create tabel item (id int);\n\nselect 1;\ncreate tabel other (id int);\n"})
    assert [(finding.line, finding.rule) for finding in found] == [(1, "syntax-error"), (4, "syntax-error")]


def test_what_a_table_of_the_same_file_would_wait_for_is_no_finding(lint: Lint) -> None:
    table = "create table public.item (id bigint);\ncreate index item_id on item (id);\n"
    locking = "alter table item alter column id set not null;\nalter table item add unique (id);\n"
    assert lint({"V1__item.sql": table + locking, "V2__alone.sql": table + locking + "vacuum item;\n"}) == []
    older = lint({"V3__if.sql": table.replace("table ", "table if not exists ") + locking})
    assert [f.rule for f in older] == [RULE, "adding-not-nullable-field", "disallowed-unique-constraint"]


def test_a_comment_accepts_with_a_reason_what_follows_or_shares_its_lines(lint: Lint) -> None:
    above = f"-- dbplatform:accept {RULE}: the table is empty\n-- of all that is\n{INDEX}"
    beside = "create index other\n    on item (id);  -- dbplatform:accept " + f"{RULE}, ban-drop-table: nobody writes\n"
    found = lint({"V1__item.sql": f"{above}{beside}{INDEX}"})
    assert places(found) == [
        ("V1__item.sql", 3, 1, RULE, "accepted"),
        ("V1__item.sql", 4, 1, RULE, "accepted"),
        ("V1__item.sql", 6, 1, RULE, "open"),
        ("V1__item.sql", 5, 1, "unused-accept", "open"),
    ]
    assert [f.reason for f in found] == ["the table is empty", "nobody writes", None, None]
    assert "accepts nothing: ban-drop-table" in found[3].message


def test_a_comment_at_the_end_or_in_a_string_accepts_nothing(lint: Lint) -> None:
    said = f"-- dbplatform:accept {RULE}: words\n"
    found = lint({"V1__item.sql": f"select $$\n{said}$$;\n{INDEX}{said}"})
    assert places(found) == [("V1__item.sql", 4, 1, RULE, "open"), ("V1__item.sql", 5, 1, "unused-accept", "open")]


@pytest.mark.parametrize(
    ("comment", "error", "words"),
    [
        ("dbplatform:accept", ScriptError, "behind a colon, the reason"),
        (f"dbplatform:accept {RULE}", ScriptError, "behind a colon, the reason"),
        (f"dbplatform: accept {RULE}: ", ScriptError, "behind a colon, the reason"),
        ("dbplatform:accept slow-index: because", UnknownRule, "no rule 'slow-index'"),
    ],
)
def test_a_comment_that_says_too_little_is_refused_with_its_place(
    lint: Lint, comment: str, error: type[UsageError], words: str
) -> None:
    with pytest.raises(error, match=words) as refused:
        lint({"V1__item.sql": f"select 1;\n-- {comment}\n{INDEX}"})
    assert refused.value.place is not None
    assert refused.value.place.endswith("V1__item.sql:2")
    assert "dbplatform:accept <rule>: <reason>" in str(refused.value) or RULE in str(refused.value)


def test_the_declaration_accepts_in_files_that_are_applied(tmp_path: Path, lint: Lint) -> None:
    accept = [
        AcceptedFinding(rules=[RULE, "ban-drop-table"], script="V1__*.sql", reason="it was empty"),
        AcceptedFinding(rules=[RULE], script="V9__*.sql", reason="never"),
    ]
    policy = MigrationPolicy(lint=LintPolicy(accept=accept))
    assert [f.status for f in lint({"V1__item.sql": INDEX, "V2__item.sql": INDEX}, policy)] == ["accepted", "open"]
    _, idle = lint_files(discover(tmp_path), policy, None)
    assert idle == [accept[1]]
    unknown = MigrationPolicy(lint=LintPolicy(accept=[AcceptedFinding(rules=["x"], script="*", reason="y")]))
    with pytest.raises(UnknownRule, match="no rule 'x'"):
        lint({}, unknown)


def test_what_a_file_may_destroy_is_accepted_and_what_undo_takes_away_is_no_finding(lint: Lint) -> None:
    drop = "alter table item drop column price;\nalter table item rename column id to key;\n"
    found = lint({"V1__price.sql": f"-- dbplatform:allow drop column\n{drop}", "U1__price.sql": drop})
    assert places(found) == [
        ("V1__price.sql", 2, 18, "ban-drop-column", "accepted"),
        ("V1__price.sql", 3, 18, "renaming-column", "open"),
    ]
    assert found[0].reason == "dbplatform:allow drop column"
    declared = lint({"V1__price.sql": drop}, MigrationPolicy(allow_destructive=True))
    assert [f.status for f in declared] == ["accepted", "open"]


def test_taste_is_asked_for(lint: Lint) -> None:
    files = {"V1__item.sql": "create table item (id serial, name varchar(9), made timestamp);\n"}
    assert lint(files) == []
    found = {f.rule for f in lint(files, MigrationPolicy(lint=LintPolicy(pedantic=True)))}
    assert found == {"prefer-bigint-over-int", "prefer-identity", "prefer-text-field", "prefer-timestamp-tz"}


def test_one_statement_is_blamed_once_for_one_thing(lint: Lint) -> None:
    found = lint({"V1__item.sql": "alter table item add foreign key (shop) references shop;\n"})
    assert [f.rule for f in found] == ["adding-foreign-key-constraint"]


def test_sql_that_squawk_cannot_read_is_an_error_and_a_transaction_of_its_own_is_refused(lint: Lint) -> None:
    assert next((f.rule, f.level) for f in lint({"V1__item.sql": "create tabel item (id int);\n"})) == (
        "syntax-error",
        "error",
    )
    with pytest.raises(ScriptError, match="begin in a migration"):
        lint({"V2__item.sql": "begin;\n"})


def test_squawks_own_comments_hold_and_its_configuration_is_not_read(
    tmp_path: Path, lint: Lint, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".squawk.toml").write_text(f'excluded_rules = ["{RULE}"]\n')
    monkeypatch.chdir(tmp_path)
    found = lint({"V1__item.sql": f"-- squawk-ignore {RULE}\n{INDEX}{INDEX}"})
    assert places(found) == [("V1__item.sql", 3, 1, RULE, "open")]


def test_every_rule_is_one_that_squawk_knows() -> None:
    assert len(RULES) == len(SAFETY) + len(TASTE) + len(LEFT_OUT)
    assert RULES >= OF_EXISTING_ROWS
    own = {"syntax-error", "unused-ignore"}
    names = [f"--exclude={rule}" for rule in sorted(RULES - own)]
    done = subprocess.run([squawk.program(), *names], input="select 1;", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_lint_that_could_not_run_is_an_error(
    lint: Lint, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is missing, one of the same name that is another, and one that cannot be executed."""
    empty = tmp_path_factory.mktemp("bin")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(empty))
    monkeypatch.setattr("sys.executable", str(empty / "python"))
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(LintCouldNotRun, match="squawk is missing") as missing:
        lint({"V1__item.sql": INDEX})
    assert "pip install 'squawk-cli" in str(missing.value.hint)
    program = empty / "squawk"
    program.write_text("#!/bin/sh\necho what is a migration >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(LintCouldNotRun, match=r"exit code 3\): what is a migration"):
        lint({})
    program.write_text("#!/nowhere/at/all\n")
    with pytest.raises(LintCouldNotRun, match="did not run"):
        lint({})

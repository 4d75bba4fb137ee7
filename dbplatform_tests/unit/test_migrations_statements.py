"""The splitter cuts scripts where psql does, and knows the line of each statement."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbplatform.migrations.errors import ScriptError
from dbplatform.migrations.statements import split


def pieces(text: str) -> list[str]:
    return [statement.sql for statement in split(text).statements]


WHOLE = [
    "select 1",
    "select 'a;b', 'it''s', ''",
    r"select 'C:\', 1",
    r"select E'a\';b', e'\\'",
    "select E'a'\n  '\\';b'",
    "select U&'d\\0061t;', b'1', x'ff', n'a;'",
    'select ";", "a"";b", U&"x;"',
    "select $$a;b$$, $q$ $$;$$ 'x $q$, $ü$;$ü$",
    "select a$1$b from t",
    "do $do$ begin perform 1; end $do$",
    "select 1 /* ; /* nested; */ ; */ + 2",
    "select 1 -- not; yet\n + 2",
    "select 1+-- ;\n2",
    "select '--', '/*', 1",
    "create rule r as on insert to t do also (insert into l values (1); insert into l values (2))",
    "create function f() returns int language sql as 'select 1; select 2'",
    "create function f(begin int) returns int language sql return 1",
    "create or replace function f(a int) returns int language sql\nbegin atomic\n  select 1; select a;\nend",
    "create procedure p() begin atomic insert into t values (case when true then 1 else case 2 when 2 then 3 end end);"
    " select x.end, 1 as case, 2 as end from x; end",
    "select case when a then 1 end from t",
    "select a.begin from t",
    "create table t (a int, b text default ';')",
    "select 'Zürich 東京 🛫;'",
    "explain select 1",
    "insert into t values (1, 'a;)', -2.5, null, TRUE), (1, E'\\';', --;\n 2), (nullif(1, ';'), f(false))",
    "select (1, ')'';(', (2), x.nulls, (null), (n';'), (1--;\n))",
]


@pytest.mark.parametrize("statement", WHOLE)
def test_a_statement_stays_whole(statement: str) -> None:
    assert pieces(f"{statement};") == [statement]
    assert pieces(f"{statement}") == [statement]


# What may stand between two statements: always one semicolon, and any space and comments around it.
_space = st.sampled_from(
    [" ", "\n", "\r\n", "\r", "\t", "\f", "-- a 'comment; \"$$\n", "/* ; ' /* $$ */ \" */", ";", "--\n"]
)
_gap = st.builds(lambda a, b: f"{''.join(a)};{''.join(b)}", st.lists(_space, max_size=4), st.lists(_space, max_size=4))


@given(st.lists(st.tuples(st.sampled_from(WHOLE), _gap), max_size=8), st.lists(_space, max_size=3))
def test_statements_joined_by_any_space_and_comments_come_apart_again(
    parts: list[tuple[str, str]], start: list[str]
) -> None:
    text = "".join(start) + "".join(statement + gap for statement, gap in parts)
    assert pieces(text) == [statement for statement, _ in parts]


_body = st.text(st.sampled_from("a;'\"$\\-/*\n ().é"), max_size=20)


@given(st.lists(_body, min_size=1, max_size=5))
def test_whatever_a_string_holds_it_is_one_statement(bodies: list[str]) -> None:
    quoted = ["select '{}'".format(body.replace("'", "''")) for body in bodies]
    quoted += ["select E'{}'".format(body.replace("\\", "\\\\").replace("'", "\\'")) for body in bodies]
    quoted += [f"select $x${body}$x$" for body in bodies]
    quoted += ['select "{}"'.format(body.replace('"', '""')) for body in bodies]
    assert pieces(";".join(quoted)) == quoted


@given(st.text(st.sampled_from("a;'\"$\\-/*\n ()eE."), max_size=40))
def test_any_text_is_split_or_refused_and_no_statement_is_lost(text: str) -> None:
    try:
        script = split(text)
    except ScriptError:
        return
    for statement in script.statements:
        assert statement.sql in text
        assert statement.sql.strip() == statement.sql != ""


def test_empty_statements_are_left_out() -> None:
    assert pieces(" ; ;; -- nothing\n ; /* nor here */ ;") == []
    assert pieces("") == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_statement_knows_its_line(end: str) -> None:
    text = end.join(["-- heading", "", "select 1;", "/* two", "lines */ select", "  2; select 3;", "select $$", "$$"])
    assert [s.line for s in split(text).statements] == [3, 5, 6, 7]


def test_a_position_in_a_statement_has_its_line() -> None:
    statement = split("\n\nselect a,\r\n  b,\n  c;").statements[0]
    assert statement.line_of(len(statement.sql) - 1) == 5


def test_copy_data_belongs_to_its_statement() -> None:
    script = split("copy t (a, b) from stdin;\n1\t'a;\n\\N\t$$\n\\.\nselect 1;\n")
    assert [s.sql for s in script.statements] == ["copy t (a, b) from stdin", "select 1"]
    assert script.statements[0].copy_data == "1\t'a;\n\\N\t$$\n"
    assert script.statements[1].line == 5


def test_copy_may_have_options_and_no_rows() -> None:
    script = split("COPY public.t FROM STDIN WITH (FORMAT csv) ; -- rows\n\\.".replace(" -- rows", ""))
    assert script.statements[0].copy_data == ""


def test_copy_from_a_file_has_no_data() -> None:
    assert split("copy t from '/tmp/stdin'; select 1").statements[0].copy_data is None


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("select 1;\nselect 'a;\nb", "single quotes does not end", 2),
        ('select 1;\n\nselect "a', "double quotes does not end", 3),
        ("select $x$ a;\n$$", r"\$x\$ does not end", 1),
        ("\n/* a /* b */ select 1;", "comment /\\* does not end", 2),
        ("select 1;\n\\connect other\n", r"\\connect is a command of psql", 2),
        ("select 1 \\gset\n", r"\\gset is a command of psql", 1),
        ("copy t from stdin;\n1\n2\n", "does not end", 1),
        ("copy t from stdin", "no semicolon", 1),
        ("copy t from stdin; select 1;\n\\.", "begins on the line after", 1),
    ],
)
def test_what_cannot_be_split_is_refused_with_its_line(text: str, message: str, line: int) -> None:
    with pytest.raises(ScriptError, match=message) as caught:
        split(text, file="V1__a.sql")
    assert caught.value.place == f"V1__a.sql:{line}"
    assert caught.value.line == line


def test_a_long_string_that_does_not_end_is_refused_at_once() -> None:
    with pytest.raises(ScriptError):
        split("select '" + "''a" * 300_000)


def test_comments_are_kept_with_their_lines() -> None:
    script = split(
        dedent("""\
        -- dbplatform:allow drop table
        select '-- not this'; -- nor lost
        """)
    )
    assert [(c.text, c.line) for c in script.comments] == [(" dbplatform:allow drop table", 1), (" nor lost", 2)]


@pytest.mark.parametrize("command", [r"\restrict aB3", r"\i other.sql", r"\copy t from 'x'", r"\gexec", r"\.", r"\!ls"])
def test_every_command_of_psql_is_refused_by_its_name(command: str) -> None:
    with pytest.raises(ScriptError, match="is a command of psql, not SQL") as caught:
        split(f"select 1;\n{command}\n", file="V1__a.sql")
    assert caught.value.message.startswith(command.split()[0])
    assert caught.value.place == "V1__a.sql:2"


def test_a_backslash_escapes_in_plain_strings_where_the_session_says_so() -> None:
    text = r"select 'it\'s; one', N'\'', $$\'$$; select 'C:\\';"
    assert [s.sql for s in split(text, backslashes=True).statements] == [
        r"select 'it\'s; one', N'\'', $$\'$$",
        r"select 'C:\\'",
    ]
    with pytest.raises(ScriptError):
        split(text)


@pytest.mark.parametrize("off", ["off", "'off'", "false", "0"])
def test_a_script_may_turn_backslashes_on_and_off(off: str) -> None:
    text = (
        rf"select 'C:\'; set standard_conforming_strings = {off}; select 'a\';b', ('x\';y');"
        "\nset local standard_conforming_strings to on;\n" + r"select 'D:\'; select 1"
    )
    assert pieces(text)[2:] == [
        r"select 'a\';b', ('x\';y')",
        "set local standard_conforming_strings to on",
        r"select 'D:\'",
        "select 1",
    ]

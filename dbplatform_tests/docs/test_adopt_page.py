"""The how-to page on a running database is typed word for word, against a forum that the platform never saw."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.adopted.places import database_of
from dbplatform_tests.docs.test_tutorial import differences, plain
from dbplatform_tests.installation import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-to" / "adopt.md"
#: As many as the page calls large; it is not read whole, so two million would say the same.
_ROWS = 120_000
_LOG = """
    insert into audit.action_log (action, acting_user_id, ip_address, created_at)
    select 1 + i %% 9, 1 + i %% 700, '10.0.0.1', now() - (%s - i) * interval '9 minutes' from generate_series(1, %s) i
"""


@pytest.mark.drill
def test_the_page_on_a_running_database_works_word_for_word(server_url: str, tmp_path: Path) -> None:
    text = PAGE.read_text()
    with database_of(server_url, "forum") as forum:
        with psycopg.connect(forum.url, autocommit=True) as owner:
            owner.execute("truncate audit.action_log")
            owner.execute(_LOG, (_ROWS, _ROWS))
            owner.execute("analyze audit.action_log")
        [grant] = re.findall(r"^grant .* to ops;", text, re.MULTILINE)
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(grant.replace("ops", str(conninfo_to_dict(forum.url)["user"])).encode())
        replaced = {
            "postgresql://ops:...@db.example.com/forum?sslmode=verify-full&sslrootcert=system": forum.url,
            "--url-env FORUM_URL": f"--url-env FORUM_URL --candidates-from {_ROWS}",
            # The tests' server has no TLS, and is told to lose what it holds.
            "doctor forum": "doctor forum; test $? -le 1",
        }
        try:
            wrong = differences(PAGE, tmp_path, replaced, root="/home/you")
        finally:
            EmbeddedServer(Home(root=tmp_path / "ops-project" / ".dbplatform")).remove()
        assert not wrong, "\n".join(wrong)
        [shown] = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        written = (tmp_path / "ops-project" / "defs" / "forum" / "defs.yaml").read_text()
        lines = {plain(line) for line in written.splitlines()}
        assert [line for line in shown.splitlines() if plain(line) not in lines] == []

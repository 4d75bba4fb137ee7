"""The runbooks of physical backups are typed word for word, practice and all, each on a server of its own."""

from __future__ import annotations

import pytest

from dbplatform.home import Home
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.docs.test_tutorial import differences
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.embedded_support import open_folder

PAGES = REPOSITORY / "docs" / "runbooks"


@pytest.mark.drill
@pytest.mark.parametrize("page", ["total-loss", "corrupted-page"])
def test_a_runbook_works_word_for_word(page: str) -> None:
    with open_folder() as home:
        account_for(home).own(home)
        try:
            assert differences(PAGES / f"{page}.md", home, {}, root="/home/you") == []
        finally:
            EmbeddedServer(Home(root=home / "ops" / ".dbplatform")).remove()

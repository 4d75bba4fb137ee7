"""Forms of the pages: how one is read."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request

from dbplatform.web.answers import BadRequest


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form. Raises ``BadRequest``."""
    try:
        fields = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise BadRequest(name="body", problem="it is no form", hint="Open the page again.") from error
    return {name: values[-1] for name, values in fields.items()}


Form = Annotated[dict[str, str], Depends(_form)]

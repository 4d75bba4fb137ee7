"""Parts of long lists: how much of one is asked for, within bounds, and where the next part is."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request

from dbplatform.web.reading import Part

Limit = Annotated[int, Query(ge=1, le=200, description="How many.")]
Offset = Annotated[int, Query(ge=0, le=100_000, description="How many are left out before them.")]


def _part(request: Request, limit: Limit = 50, offset: Offset = 0) -> Part:
    asked = {**request.query_params, "limit": limit, "offset": offset + limit}
    return Part(limit=limit, offset=offset, next=f"{request.url.path}?{urlencode(asked)}")


PartOf = Annotated[Part, Depends(_part)]

"""What is asked for by the words behind the question mark: parts of long lists, and where the next part is."""

from collections.abc import Hashable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request

from dbplatform.web.reading import Part

Limit = Annotated[int, Query(ge=1, le=200, description="How many.")]
Offset = Annotated[int, Query(ge=0, le=100_000, description="How many are left out before them.")]


def asked(request: Request) -> dict[str, str]:
    """The parameters that the route knows, by name. No other one changes an answer, so none makes it be made anew."""
    names: set[str] = set()
    dependants = [request.scope["route"].dependant]
    while dependants:
        one = dependants.pop()
        names.update(field.alias for field in one.query_params)
        dependants.extend(one.dependencies)
    return {name: value for name, value in sorted(request.query_params.items()) if name in names}


def key_of(request: Request) -> tuple[Hashable, ...]:
    """What a document is kept by: its address, as the route reads it."""
    return request.scope["path"], *asked(request).items()


def _part(request: Request, limit: Limit = 50, offset: Offset = 0) -> Part:
    following = {**asked(request), "limit": limit, "offset": offset + limit}
    return Part(limit=limit, offset=offset, next=f"{request.url.path}?{urlencode(following)}")


PartOf = Annotated[Part, Depends(_part)]

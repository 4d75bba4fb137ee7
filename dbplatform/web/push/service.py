"""Everything that pushes, begun and ended with the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from dbplatform.live.policy import LivePolicy
from dbplatform.postgres.connection import Target
from dbplatform.postgres.identifiers import Relation
from dbplatform.web.push.announcements import Announcements
from dbplatform.web.push.feed import Feed
from dbplatform.web.push.hub import Hub
from dbplatform.web.push.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What there is to push: by default nothing."""

    names: Sequence[str] = ()
    """The databases that may be watched."""
    live: Mapping[str, Sequence[LivePolicy]] = field(default_factory=dict)
    """The live tables by database; one without any has no entry."""
    target_of: Callable[[str], Target | None] = lambda name: None
    """Where a database is; None while it is still to be made. Raises for one that was there."""
    masked: Mapping[str, AbstractSet[tuple[Relation, str]]] = field(default_factory=dict)
    """By database the columns whose values nobody outside may see."""
    ledger: Target | None = None


class Push:
    """The hub, and who fills it. Made before the event loop; works inside ``running``."""

    def __init__(self, pushed: Pushed) -> None:
        self.names = frozenset(pushed.names)
        self.hub = Hub()
        self.progress = Progress(pushed.target_of, self.hub)
        self._pushed = pushed
        self.feeds: dict[str, Feed] = {}
        self.announcements = (
            Announcements(pushed.ledger, self.hub, self.progress.now_running) if pushed.ledger is not None else None
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow everything until the block ends."""
        pushed = self._pushed
        self.feeds |= {
            name: Feed(name, policies, partial(pushed.target_of, name), self.hub, masked=pushed.masked.get(name, set()))
            for name, policies in pushed.live.items()
        }
        followed = [feed.run() for feed in self.feeds.values()]
        if self.announcements is not None:
            followed.append(self.announcements.run())
        tasks = [asyncio.create_task(one) for one in followed]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

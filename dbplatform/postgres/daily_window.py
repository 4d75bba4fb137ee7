"""A daily window of time, such as the night: ``22:00-05:00``, or ``22:00-05:00 Europe/Vienna``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_WORDS = re.compile(r"(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)(?:\s+(\S+))?")


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open, by the clock on the wall of its zone: ``[opens, closes)``, over midnight where it closes earlier."""

    opens: time
    closes: time
    zone: tzinfo

    @classmethod
    def parse(cls, text: str) -> Window:
        """Raises ValueError with a sentence."""
        found = _WORDS.fullmatch(text.strip())
        try:
            if found is None:
                raise ValueError
            opens, closes = time.fromisoformat(found[1].zfill(5)), time.fromisoformat(found[2].zfill(5))
        except ValueError:
            raise ValueError(
                f"{text!r} is no window of the day; write 22:00-05:00, or 22:00-05:00 Europe/Vienna"
            ) from None
        if opens == closes:
            raise ValueError(f"the window {text!r} is closed all day; write two different times")
        try:
            zone: tzinfo = ZoneInfo(found[3]) if found[3] else UTC
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{found[3]!r} is no time zone; write one such as Europe/Vienna") from None
        return cls(opens, closes, zone)

    def is_open(self, now: datetime) -> bool:
        """Whether the aware time is within it."""
        here = now.astimezone(self.zone).time()
        if self.opens < self.closes:
            return self.opens <= here < self.closes
        return here >= self.opens or here < self.closes

    def __str__(self) -> str:
        zone = "UTC" if self.zone is UTC else str(self.zone)
        return f"{self.opens:%H:%M}-{self.closes:%H:%M} {zone}"


def _window(value: Any) -> Any:
    return Window.parse(value) if isinstance(value, str) else value


#: A window as people write it.
WindowWords = Annotated[Window, BeforeValidator(_window), PlainSerializer(str), WithJsonSchema({"type": "string"})]

"""Sending by Apprise: one message, one receiver, and a failure in words that hold no secret."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from dbplatform.alerting.errors import ChannelFailed

TIMEOUT_S = 30

_TYPES: dict[str, Literal["info", "success", "warning", "failure"]] = {
    "resolved": "success",
    "warning": "warning",
    "critical": "failure",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent. ``key`` is the last line of the body, too: the same at every try."""

    key: str
    kind: str
    severity: str
    title: str
    body: str


#: Sends a message to the URL; raises ``ChannelFailed`` when the receiver has not taken it.
Send = Callable[[str, Message], None]


def send_by_apprise(url: str, message: Message) -> None:
    """Send to the one receiver that an Apprise URL names; raises ``ChannelFailed`` with the reason, without secrets.

    Gives up after 30 s. From the first call on, the logs of Apprise in this process end here, and those of HTTP
    connections say nothing below INFO, because they hold the URL. Source: https://github.com/caronc/apprise/wiki
    """
    import apprise

    _silence()
    receivers = apprise.Apprise()
    if not receivers.add(url) or len(receivers) != 1:
        raise ChannelFailed(reason="the variable does not hold the Apprise URL of one receiver")
    body = fitted(message.body, receivers[0].body_maxlen - len(message.title) - 2)
    kind = _TYPES.get(message.kind) or _TYPES.get(message.severity, "info")
    try:
        result = receivers.notify(
            title=message.title, body=body, notify_type=kind, body_format="text", timeout=TIMEOUT_S
        )
    except Exception as error:
        # Apprise has a plugin for each of a hundred services: whatever one raises is its channel's failure.
        raise ChannelFailed(reason=without_secrets(f"{type(error).__name__}: {error}", url)) from None
    if not result:
        said = " ".join(dict.fromkeys(entry.message.strip() for entry in result.logs()))
        raise ChannelFailed(reason=without_secrets(said, url).rstrip(".") or "the receiver did not take the message")


def fitted(body: str, most: int) -> str:
    """The body within the receiver's limit of characters: what is cut is said, the last line with the key stays."""
    if len(body) <= most:
        return body
    text, _, key = body.rpartition("\n")
    end = f"\n... (cut; all of it: dbplatform alerts list)\n{key}"
    return text[: max(0, most - len(end))] + end


def without_secrets(text: str, url: str) -> str:
    """The text with every part of the URL, but its scheme, made unreadable; at most 500 characters."""
    parts = {part for whole in (url, unquote(url)) for part in re.split(r"[^\w.~-]+", whole.partition("://")[2])}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= 4:
            text = text.replace(part, "***")
    return " ".join(text.split())[:500]


def _silence() -> None:
    logger = logging.getLogger("apprise")
    if logger.propagate:
        logger.addHandler(logging.NullHandler())
        logger.addFilter(_without_url)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.INFO)


def _without_url(record: logging.LogRecord) -> bool:
    """Lets through what holds no URL: also to a handler that the host put on Apprise's logger."""
    return "://" not in record.getMessage()

"""The keys of encrypted backups: age recipients, which are public, and the identities that open what is sent to them.

An identity is a line ``AGE-SECRET-KEY-1...`` as ``age-keygen`` writes it, in the variable ``DBPLATFORM_AGE_IDENTITY``
or in a file that ``DBPLATFORM_AGE_IDENTITY_FILE`` names; several lines are several keys. None is needed to back up, and
none is ever printed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbplatform.backups.errors import KeyUnreadable, OutputExists

IDENTITY = "DBPLATFORM_AGE_IDENTITY"
IDENTITY_FILE = "DBPLATFORM_AGE_IDENTITY_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The identities that are given to this process."""

    identities: tuple[Any, ...] = field(repr=False)
    source: str
    """The variable, and the file that it names."""


def given_keys() -> Keys | None:
    """What the variables give, the key itself before the file; None: neither is set. Raises ``KeyUnreadable``."""
    if text := os.environ.get(IDENTITY):
        return _parsed(text, IDENTITY)
    if name := os.environ.get(IDENTITY_FILE):
        source = f"{name} ({IDENTITY_FILE})"
        try:
            return _parsed(Path(name).read_text(encoding="utf-8"), source)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
            raise KeyUnreadable(source=source, reason=reason, hint="Name a file of age-keygen.") from None
    return None


def recipients(words: Sequence[str]) -> list[Any]:
    """The public keys for pyrage; raises ``ValueError`` with a sentence for what is none."""
    import pyrage

    found = []
    for word in words:
        if word.upper().startswith("AGE-SECRET-KEY-"):
            # Not repeated: it is the very secret that must not be here.
            raise ValueError("a secret key was written down; write the public one (age1...), and make a new pair")
        try:
            found.append(pyrage.x25519.Recipient.from_str(word))
        except pyrage.RecipientError:
            raise ValueError(
                f"{word!r} is no age recipient; write the line age1... that age-keygen -y prints"
            ) from None
    return found


def new_key(file: Path) -> str:
    """Write a new key into a new file that only this user may read, as age-keygen does; its recipient.

    Raises ``OutputExists``.
    """
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise OutputExists(file=file, hint="Name a new one.") from None
    with os.fdopen(descriptor, "w") as out:
        out.write(
            f"# created: {datetime.now(UTC).isoformat(timespec='seconds')}\n# public key: {recipient}\n{identity}\n"
        )
    return recipient


def _parsed(text: str, source: str) -> Keys:
    import pyrage

    lines = [line.strip() for line in text.splitlines()]
    identities = []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        try:
            identities.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError:
            reason = f"line {number} is no line AGE-SECRET-KEY-1..."
            raise KeyUnreadable(source=source, reason=reason, hint="Give it what age-keygen wrote.") from None
    if not identities:
        raise KeyUnreadable(source=source, reason="it is empty", hint="Give it what age-keygen wrote.")
    return Keys(identities=tuple(identities), source=source)

"""The tokens of the status service: made for somebody, for a time, for one scope; shown once and kept as a hash.

A token is 256 random bits, so its SHA-256 is as safe as a slow hash of a password, and one look at an index finds it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, cast

from sqlalchemy import func, or_, select, update

from dbplatform.errors import UsageError
from dbplatform.ledger.access import ServiceToken
from dbplatform.ledger.acting import current, note
from dbplatform.ledger.ledger import Ledger

Scope = Literal["read", "act"]
State = Literal["valid", "expired", "revoked"]

#: By this, and its length, whoever scans for secrets that leaked finds one.
BEGINS: Final = "dbp_"
LONGEST: Final = timedelta(days=400)
_FORM: Final = re.compile(rf"{BEGINS}[A-Za-z0-9_-]{{43}}")
_NAME: Final = re.compile(r"[\w.@+-][\w.@+ -]{0,99}")
#: So often it is noted that a token was used.
_USED_EVERY: Final = timedelta(minutes=1)


class UnusableName(UsageError):
    """A token cannot be called {name!r}: write up to 100 letters, digits, spaces and any of . @ + - _."""


class NameTaken(UsageError):
    """There is a token {name} already."""


class LivesTooLong(UsageError):
    """A token lives for {days} days at most."""


class UnknownToken(UsageError):
    """There is no token {which} that could be revoked."""


class TokenRefused(UsageError):
    """{why}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as the ledger knows it; the token itself is in no record."""

    id: int
    name: str
    scope: Scope
    state: State
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None
    last_used_at: datetime | None
    last_used_from: str | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tokens``."""
        return {
            "id": self.id,
            "name": self.name,
            "scope": self.scope,
            "state": self.state,
            "created_by": self.created_by,
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "revoked_at": self.revoked_at.isoformat() if self.revoked_at else None,
            "revoked_by": self.revoked_by,
            "last_used_at": self.last_used_at.isoformat() if self.last_used_at else None,
            "last_used_from": self.last_used_from,
        }


def create_token(
    ledger: Ledger, name: str, scope: Scope, *, length: timedelta, now: datetime, dry_run: bool = False
) -> tuple[TokenRecord, str | None]:
    """Make a token that is good until ``now + length``; the second part is the token, which cannot be had again.

    With ``dry_run`` nothing is kept and there is no token. Raises ``UnusableName``, ``NameTaken`` and ``LivesTooLong``.
    """
    if not _NAME.fullmatch(name):
        raise UnusableName(name=name, hint="It is shown in lists and in the audit log.")
    if length > LONGEST:
        raise LivesTooLong(days=LONGEST.days, hint="Make a new one before it expires.")
    token = BEGINS + secrets.token_urlsafe(32)
    with ledger.session() as session:
        taken = select(ServiceToken.id).where(ServiceToken.name == name, ServiceToken.revoked_at.is_(None))
        if session.scalar(taken) is not None:
            raise NameTaken(name=name, hint=f"Revoke it first: dbplatform token revoke {name!r}")
        row = ServiceToken(
            name=name,
            sha256=_hash(token),
            scope=scope,
            created_by=current().name,
            created_at=now,
            expires_at=now + length,
        )
        if dry_run:
            row.id = 0
            return _record(row, now), None
        session.add(row)
        session.flush()
        note(session, "create token", name, scope=scope, expires_at=row.expires_at.isoformat())
        return _record(row, now), token


def list_tokens(ledger: Ledger, *, now: datetime, everything: bool = False) -> tuple[TokenRecord, ...]:
    """The valid tokens, the newest first; with ``everything`` also those that expired or were revoked."""
    statement = select(ServiceToken).order_by(ServiceToken.created_at.desc(), ServiceToken.id.desc())
    if not everything:
        statement = statement.where(ServiceToken.revoked_at.is_(None), ServiceToken.expires_at > now)
    with ledger.session() as session:
        return tuple(_record(row, now) for row in session.scalars(statement))


def revoke_token(ledger: Ledger, which: str, *, now: datetime, dry_run: bool = False) -> TokenRecord:
    """Revoke a token, by its name or number: its next request is refused. Raises ``UnknownToken``.

    A token that is called by a number is meant before the one that has it.
    """
    named = by_name = ServiceToken.name == which
    if which.isascii() and which.isdigit() and len(which) < 19:
        named = or_(named, ServiceToken.id == int(which))
    with ledger.session() as session:
        statement = select(ServiceToken).where(named, ServiceToken.revoked_at.is_(None)).with_for_update()
        row = session.scalars(statement.order_by(by_name.desc(), ServiceToken.id)).first()
        if row is None:
            raise UnknownToken(which=which, hint="See them: dbplatform token list")
        if not dry_run:
            row.revoked_at, row.revoked_by = now, current().name
            note(session, "revoke token", row.name, id=row.id)
        return _record(row, now)


def recognized(ledger: Ledger, token: str, *, origin: str) -> TokenRecord:
    """Whose token it is, by the ledger at this moment; notes to the minute that it was used, and from where.

    What is wrong with a token is told to whoever holds it. Raises ``TokenRefused``.
    """
    if not _FORM.fullmatch(token):
        raise TokenRefused(why="the token is none of this service", hint="Make one: dbplatform token create NAME")
    with ledger.session() as session:
        statement = select(ServiceToken, func.now()).where(ServiceToken.sha256 == _hash(token))
        found = session.execute(statement).first()
        if found is None:
            raise TokenRefused(why="the token is not known", hint="Make one: dbplatform token create NAME")
        row, now = found
        if row.revoked_at is not None:
            raise TokenRefused(why=f"the token {row.name} was revoked", hint="Make one: dbplatform token create NAME")
        if row.expires_at <= now:
            at = f"{row.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            hint = "Revoke it and make a new one: dbplatform token create NAME"
            raise TokenRefused(why=f"the token {row.name} expired at {at}", hint=hint)
        if row.last_used_at is None or now - row.last_used_at >= _USED_EVERY:
            used = update(ServiceToken).where(ServiceToken.id == row.id)
            session.execute(used.values(last_used_at=now, last_used_from=origin))
        return _record(row, now)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _record(row: ServiceToken, now: datetime) -> TokenRecord:
    state: State = "valid" if row.expires_at > now else "expired"
    return TokenRecord(
        id=row.id,
        name=row.name,
        scope=cast("Scope", row.scope),
        state="revoked" if row.revoked_at is not None else state,
        created_by=row.created_by,
        created_at=row.created_at.astimezone(UTC),
        expires_at=row.expires_at.astimezone(UTC),
        revoked_at=row.revoked_at.astimezone(UTC) if row.revoked_at else None,
        revoked_by=row.revoked_by,
        last_used_at=row.last_used_at.astimezone(UTC) if row.last_used_at else None,
        last_used_from=row.last_used_from,
    )

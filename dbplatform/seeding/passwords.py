"""Passwords of seeds: hashed by bcrypt while they are loaded, each with a random salt of its own.

A salt that could be computed from the seed would let anybody who reads the seed's files prepare for it; so two loadings
of one seed give different hashes, both right. What makes a repeated seeding give the same rows is its record, and
where a seed is loaded by key, a row that is there keeps the password that it has: a person may have changed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

#: As strong as is usual; each hash takes about 0.2 s.
DEFAULT_ROUNDS = 12
#: Weaker ones are for profiles whose passwords protect nothing.
LEAST_ROUNDS = 10
WEAK_PROFILES = ("dev", "test")
#: bcrypt reads no more.
LONGEST_BYTES = 72

_HASH = re.compile(rb"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")


def hasher(rounds: int) -> Callable[[bytes], bytes]:
    """A function that hashes one password; what is a bcrypt hash already stays as it is.

    The function raises ValueError for more than 72 bytes, of which bcrypt would leave
    out the rest.
    """
    import bcrypt

    def hashed(password: bytes) -> bytes:
        if _HASH.fullmatch(password):
            return password
        if len(password) > LONGEST_BYTES:
            raise ValueError(f"a password for bcrypt has at most {LONGEST_BYTES} bytes")
        return bcrypt.hashpw(password, bcrypt.gensalt(rounds))

    return hashed

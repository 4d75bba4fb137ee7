"""What a person declares about the roles of a database."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, StringConstraints

from dbplatform.postgres.words import Policy

Capability = Literal["monitor", "migrate", "backup", "archive", "read"]
CAPABILITIES: Final[tuple[Capability, ...]] = get_args(Capability)

Login = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class RolesPolicy(Policy):
    """The roles that ``dbplatform roles apply`` makes, and who gets them."""

    prefix: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]{0,47}$",
        description="What the names of the roles begin with: <prefix>_read and so on. Left out: the database's name.",
    )
    members: dict[Capability, list[Login]] = Field(
        default={},
        description="Logins that get a role, by what they are for: {read: [ann], migrate: [deployer]}. They are made, "
        "and given their passwords, by you.",
    )
    public_keeps: list[Literal["connect", "temporary", "create"]] = Field(
        default=["connect", "temporary"],
        description="What every role of the server may do here: connect to the database, make temporary tables, create "
        "objects in its schemas. The rest is revoked from PUBLIC; []: all of it.",
    )

    def role(self, capability: Capability, database: str) -> str:
        """The name of a role."""
        return f"{self.prefix or database}_{capability}"

    def roles(self, database: str) -> dict[Capability, str]:
        """The names of all of them."""
        return {capability: self.role(capability, database) for capability in CAPABILITIES}

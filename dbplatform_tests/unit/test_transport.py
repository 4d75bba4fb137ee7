"""A database in production is reached by TLS that verifies, or not over a network at all."""

from __future__ import annotations

import pytest

from dbplatform.postgres.transport import TlsNotVerified, demand_verified


@pytest.fixture(autouse=True)
def _no_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db.example.org/shop?sslmode=verify-full",
        "postgresql://u@127.0.0.1/shop",
        "postgresql://u@localhost:5433/shop?sslmode=disable",
        "postgresql://u@[::1]/shop",
        "postgresql:///shop?host=/run/postgresql",
        "postgresql:///shop",
        "service=shop sslmode=verify-full",
        "this is no URL",
    ],
)
def test_what_is_verified_or_stays_on_this_machine_is_let_through(url: str) -> None:
    demand_verified(url, variable="SHOP_URL")


@pytest.mark.parametrize(
    ("url", "host", "mode"),
    [
        ("postgresql://u:secret@db.example.org/shop", "db.example.org", "prefer"),
        ("postgresql://u@db.example.org/shop?sslmode=require", "db.example.org", "require"),
        ("postgresql://u@db.example.org/shop?sslmode=verify-ca", "db.example.org", "verify-ca"),
        ("postgresql://u@127.0.0.1,10.0.0.7/shop", "10.0.0.7", "prefer"),
        ("postgresql://u@localhost/shop?hostaddr=10.0.0.7", "10.0.0.7", "prefer"),
        ("service=shop", "the service shop", "prefer"),
    ],
)
def test_what_leaves_this_machine_unverified_is_refused_without_its_password(url: str, host: str, mode: str) -> None:
    with pytest.raises(TlsNotVerified) as refused:
        demand_verified(url, variable="SHOP_URL")
    assert (refused.value.fields["host"], refused.value.fields["mode"]) == (host, mode)
    assert "secret" not in str(refused.value)
    assert "sslmode=verify-full" in str(refused.value.hint)


def test_what_the_url_leaves_out_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example.org")
    with pytest.raises(TlsNotVerified):
        demand_verified("postgresql:///shop", variable="SHOP_URL")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    demand_verified("postgresql:///shop", variable="SHOP_URL")

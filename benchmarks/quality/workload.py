"""The workload: a table of orders, its 54 checks as neutral data, and how its clean data can be spoiled.

Every contender is made from ``checks``. Imported by each in its own environment: nothing but the standard library.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

NOT_NULL = [
    *("order_id", "order_no", "customer_id", "store_id", "line_no", "status", "channel", "currency", "country"),
    *("amount", "discount", "quantity", "email", "created_at", "updated_at"),
]
CURRENCIES = ["USD", "EUR", "GBP", "JPY", "CHF"]
#: Kinds whose failing rows every contender counts in the same way; of the others only the verdict is compared.
COUNTED = ("not_null", "accepted", "range", "regex", "length")

SETUP = """
    create table customers (customer_id int primary key, name text not null);
    insert into customers select i, 'cust ' || i from generate_series(1, 200000) i;
    create table stores (store_id int primary key);
    insert into stores select generate_series(1, 500);
    create table orders (
        order_id bigint, order_no text, customer_id int, store_id int, line_no int, status text, channel text,
        currency text, country text, amount numeric(12,2), discount numeric(5,2), quantity int, email text,
        created_at timestamptz, updated_at timestamptz, meta jsonb, note text
    );
    select setseed(0.42);
    insert into orders
    select i, 'ORD-' || lpad(i::text, 9, '0'), 1 + (i * 7919::bigint) % 200000, 1 + i % 500, 1 + i / 500,
           (array['new', 'paid', 'shipped', 'cancelled'])[1 + i % 4], (array['web', 'app', 'store'])[1 + i % 3],
           (array['USD', 'EUR', 'GBP', 'JPY', 'CHF'])[1 + i % 5],
           (array['US', 'DE', 'FR', 'GB', 'JP', 'CH'])[1 + i % 6],
           round((random() * 990 + 5)::numeric, 2), round((random() * 50)::numeric, 2), 1 + (random() * 19)::int,
           'user' || i % 200000 || '@example.com', now() - interval '6.3 seconds' * ({rows} - i),
           now() - interval '6.3 seconds' * ({rows} - i) + interval '1 minute',
           jsonb_build_object('src', i % 10, 'tag', 't' || i % 100),
           case when i % 10 = 0 then null else 'note number ' || i end
    from generate_series(1, {rows}) i;
    alter table orders set (autovacuum_enabled = off);
"""

SPOIL = """
    update orders set amount = 4.99, quantity = 21, store_id = 501 where order_id % 1009 = 0;
    update orders set email = 'User@Example.com', currency = 'usd', status = 'lost' where order_id % 1013 = 0;
    update orders set updated_at = null, customer_id = null, note = 'note' where order_id % 1019 = 0;
    update orders set order_no = 'ORD-000000001', email = null, created_at = '2019-12-31' where order_id % 1021 = 0;
    update orders set amount = 3000, country = 'DEU', channel = null where order_id % 1031 = 0;
    update orders set order_id = 7 where order_id % 5003 = 0;
"""


def checks(rows: int) -> list[dict[str, Any]]:
    """The checks, each with its name, kind, column, arguments and a condition ``column = value`` or none."""
    made: list[dict[str, Any]] = []

    def add(kind: str, column: str | list[str] | None, where: tuple[str, str] | None = None, **arguments: Any) -> None:
        made.append({"name": f"c{len(made):02}", "kind": kind, "column": column, "where": where, **arguments})

    for column in NOT_NULL:
        add("not_null", column)
    for key in (["order_id"], ["order_no"], ["store_id", "line_no"]):
        add("unique", key)
    add("accepted", "status", values=["new", "paid", "shipped", "cancelled"])
    add("accepted", "channel", values=["web", "app", "store"])
    add("accepted", "currency", values=CURRENCIES)
    add("accepted", "country", values=["US", "DE", "FR", "GB", "JP", "CH"])
    for column, low, high in (
        ("amount", 5, 1000),
        ("discount", 0, 50),
        ("quantity", 1, 20),
        ("store_id", 1, 500),
        ("line_no", 1, rows // 500 + 1),
        ("customer_id", 1, 200_000),
        ("order_id", 1, rows),
        ("created_at", "2020-01-01", "2035-01-01"),
    ):
        add("range", column, low=low, high=high)
    add("regex", "email", regex=r"^[a-z0-9]+@[a-z]+\.com$")
    add("regex", "order_no", regex=r"^ORD-[0-9]{9}$")
    add("regex", "currency", regex=r"^[A-Z]{3}$")
    add("regex", "note", regex=r"^note number [0-9]+$")
    add("reference", "customer_id", to="customers")
    add("reference", "store_id", to="stores")
    add("row_count", None, low=rows // 5, high=rows * 2)
    add("freshness", "created_at", days=30)
    for column, low, high in (("order_no", 13, 13), ("currency", 3, 3), ("country", 2, 2), ("email", 5, 60)):
        add("length", column, low=low, high=high)
    for column, function, low, high in (
        ("amount", "avg", 400, 600),
        ("discount", "avg", 20, 30),
        ("quantity", "avg", 9, 12),
        ("amount", "sum", 200 * rows, 2000 * rows),
        ("quantity", "sum", 2 * rows, 20 * rows),
    ):
        add("aggregate", column, function=function, low=low, high=high)
    for column, most in (("note", 0.15), ("meta", 0.01), ("email", 0.01)):
        add("null_ratio", column, most=most)
    add("range", "amount", where=("status", "paid"), low=1, high=2000)
    add("not_null", "updated_at", where=("status", "cancelled"))
    add("regex", "email", where=("channel", "web"), regex="^user")
    add("accepted", "currency", where=("country", "US"), values=CURRENCIES)
    assert len(made) == 54
    return made


def condition(check: dict[str, Any]) -> str | None:
    """``status = 'paid'``."""
    return None if check["where"] is None else "{} = '{}'".format(*check["where"])


def given() -> tuple[str, list[dict[str, Any]]]:
    """The URL and the checks, from the command line of a contender."""
    return sys.argv[1], checks(int(sys.argv[2]))


def parts(url: str) -> dict[str, Any]:
    """Host, port, user, password and database of a URL."""
    split = urlsplit(url)
    return {
        "host": split.hostname,
        "port": split.port,
        "user": unquote(split.username or ""),
        "password": unquote(split.password or ""),
        "database": split.path.lstrip("/"),
    }


def tell(found: dict[str, tuple[bool, int | None]]) -> None:
    """The last line of a contender: for each check whether it passed, and how many rows failed where it says so."""
    print(json.dumps(found))

"""How values of each type lie in an archive file.

What Parquet holds exactly is stored natively: booleans, integers, floats, text, bytea, and dates and timestamps of the
years 1 to 9999. Everything else is stored as the text that PostgreSQL writes and reads, which is what its own dumps
rely on: numerics keep their scale, NaN and infinities; arrays, ranges, jsonb, enums and composites their every part. A
date or timestamp column that holds an infinity or a year outside 1 to 9999 is stored as text in that file. The type
of each column is recorded beside the rows.

Values that name an object of the database (``regclass``, ``aclitem``) change their text when that object is renamed or
dropped, and internal types cannot be read from text at all: a column with such a type inside is refused.
"""

from __future__ import annotations

from typing import Literal

Storage = Literal[
    "bool", "int16", "int32", "int64", "float32", "float64", "string", "binary", "date", "timestamp", "timestamptz"
]

#: By the name of the type in ``pg_catalog``; a domain is stored as its base type. Any other: ``string``.
_NATIVE: dict[str, Storage] = {
    "bool": "bool",
    "int2": "int16",
    "int4": "int32",
    "int8": "int64",
    "float4": "float32",
    "float8": "float64",
    "bytea": "binary",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}

#: The first and last values of the native forms of time, and whether a column has others.
TIMES: dict[Storage, tuple[str, str]] = {
    "date": ("0001-01-01", "9999-12-31"),
    "timestamp": ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"),
    "timestamptz": ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
}

NAMES_OBJECT = "it is the name of an object, which may be renamed or dropped"
INTERNAL = "PostgreSQL cannot read it from text"

#: Types of ``pg_catalog`` that do not survive a file, with the reason.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "regclass",
            "regcollation",
            "regconfig",
            "regdatabase",
            "regdictionary",
            "regnamespace",
            "regoper",
            "regoperator",
            "regproc",
            "regprocedure",
            "regrole",
            "regtype",
            "aclitem",
        ),
        NAMES_OBJECT,
    ),
    **dict.fromkeys(
        (
            "pg_node_tree",
            "pg_ndistinct",
            "pg_dependencies",
            "pg_mcv_list",
            "pg_brin_bloom_summary",
            "pg_brin_minmax_multi_summary",
            "pg_ddl_command",
            "gtsvector",
        ),
        INTERNAL,
    ),
}


def storage_of(catalog_type: str | None) -> Storage:
    """The form of a type by its name in ``pg_catalog``; None: the type is not PostgreSQL's own."""
    return _NATIVE.get(catalog_type or "", "string")

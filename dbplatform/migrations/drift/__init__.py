"""Drift: the schema as it is against the schema that the migrations make. Call it through ``engine``.

``objects`` reads a schema as parts, ``differences`` compares two of them, ``sentences`` and ``mending`` put a
difference into words and SQL.
"""

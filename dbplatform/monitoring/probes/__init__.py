"""How each metric is measured: one cheap statement per group of them, each with its file in ``postgres/sql``."""

"""Lint: what a migration would block or break by rule, and who accepted it why. Call it through ``engine``."""

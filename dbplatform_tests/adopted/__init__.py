"""Databases of other people, after well-known public schemas: what `adopt` is tried on."""

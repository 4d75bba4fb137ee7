"""Adoption: a declaration written from a running database that the platform never saw. Only reads that database."""

"""The status service: what the ledger says, over HTTP, for people and programs.

It changes what people said of alerts and reports, and nothing of a managed database.
"""

"""The status service: what the ledger says, over HTTP, for people and programs; it changes nothing."""

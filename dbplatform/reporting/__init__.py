"""Reports for people, made from the evidence in the ledger; nothing here reads a managed database."""

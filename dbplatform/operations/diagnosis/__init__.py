"""What would go wrong with a declared database, found beforehand: each finding with its cause and its mend.

Everything here looks and changes nothing: no server is started, no database, folder or table is made, the ledger is
not needed, and every question to a database runs in a read-only transaction with a time limit. A probe that fails
hides no other and never counts as passed: it says why it could not look.

``examine`` puts the probes together, ``model`` says what a finding is, ``connecting`` opens the session that most
probes ask; the other modules hold the probes of one subject each.
"""

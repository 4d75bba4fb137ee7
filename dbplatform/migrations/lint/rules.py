"""The rules of lint: which of squawk's findings count here, which are a matter of taste, and which say nothing here.

The names and what each finds: squawkhq.com/docs/rules. Squawk's opt-in rules are not run. A rule of a newer squawk that
is not named here counts.
"""

from __future__ import annotations

#: The rule of lint itself: a comment or a declaration that accepts what is not found.
UNUSED = "unused-accept"

#: What locks out readers or writers, fails halfway, or breaks clients that run: always looked for.
SAFETY = (
    "adding-field-with-default",
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "adding-required-field",
    "adding-serial-primary-key-field",
    "ban-alter-domain-with-add-constraint",
    "ban-alter-identity",
    "ban-drop-column",
    "ban-drop-constraint",
    "ban-drop-database",
    "ban-drop-default",
    "ban-drop-domain",
    "ban-drop-extension",
    "ban-drop-function",
    "ban-drop-generated-expression",
    "ban-drop-not-null",
    "ban-drop-schema",
    "ban-drop-sequence",
    "ban-drop-table",
    "ban-drop-type",
    "ban-drop-view",
    "ban-duplicate-column-assignments",
    "ban-set-schema",
    "ban-truncate-cascade",
    "changing-column-type",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "identifier-too-long",
    "renaming-column",
    "renaming-object",
    "renaming-table",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "require-concurrent-partition-detach",
    "require-concurrent-reindex",
    "syntax-error",
    "unused-ignore",
)

#: How a schema is designed; nothing breaks or waits when the file runs. Looked for with ``lint.pedantic``.
TASTE = (
    "ban-char-field",
    "ban-create-domain-with-constraint",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
    "prefer-timestamp-tz",
    "require-enum-value-ordering",
)

#: What says nothing under this engine, and why.
LEFT_OUT = {
    "ban-concurrent-index-creation-in-transaction": "the engine runs such a file without a transaction by itself",
    "ban-uncommitted-transaction": "BEGIN in a file is refused: the engine makes the transaction",
    "prefer-robust-stmts": "a file is one transaction with its row in the history, or goes on at its failed statement; "
    "IF NOT EXISTS would hide that something else is there",
    "require-lock-timeout": "the engine sets lock_timeout for every statement, and tries again",
    "require-statement-timeout": "how long a statement may run depends on the size of the table: the rehearsal "
    "measures it; waiting for locks is bounded by lock_timeout",
    "require-timeout-settings": "the former name of the two above",
    "transaction-nesting": "BEGIN and COMMIT in a file are refused: the engine makes the transaction",
}

RULES = frozenset((*SAFETY, *TASTE, *LEFT_OUT))

#: Findings on a table that the same file has created: it has no rows to scan and nobody waits for it.
OF_EXISTING_ROWS = frozenset(
    (
        "adding-field-with-default",
        "adding-foreign-key-constraint",
        "adding-not-nullable-field",
        "adding-required-field",
        "adding-serial-primary-key-field",
        "changing-column-type",
        "constraint-missing-not-valid",
        "disallowed-unique-constraint",
        "require-concurrent-index-creation",
    )
)

#: These say what ``constraint-missing-not-valid`` says of the same line, and more exactly: a unique or primary key can
#: not be NOT VALID at all.
MORE_EXACT = frozenset(
    ("adding-foreign-key-constraint", "adding-serial-primary-key-field", "disallowed-unique-constraint")
)

#: What a comment ``-- dbplatform:allow <kind>`` accepts, too: that it destroys was said.
ALLOWED_BY = {
    "ban-drop-column": "drop column",
    "ban-drop-database": "drop database",
    "ban-drop-schema": "drop schema",
    "ban-drop-sequence": "drop sequence",
    "ban-drop-table": "drop table",
    "ban-truncate-cascade": "truncate",
    "changing-column-type": "alter column type",
}


def takes_away(rule: str) -> bool:
    """Whether it finds what clients of the newer schema miss: that is what an undo file is for."""
    return rule.startswith(("ban-drop-", "renaming-")) or rule in ("ban-set-schema", "ban-alter-identity")

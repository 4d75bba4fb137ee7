"""Document 001: it names no figure, but calls two patterns faster. What is compared is only whether they are."""

from __future__ import annotations

from benchmarks.claims.ground import Connection, Ground, again, earlier, filling, hexadecimal, multiply
from benchmarks.claims.measuring import compared, query, together
from benchmarks.claims.registry import Measured, claim, less

SYSTEM = "scribemed"
_INDEXES = ("idx_users_email", "idx_sessions_user_active", "idx_audit_logs_user_date", "idx_patients_active")
_NOTES = "select id, status, subjective, provider_id from notes order by created_at desc limit 500"


def grow(ground: Ground) -> None:
    """An entry of the audit log for every two rows; users, their sessions and patients with it."""
    copies = range(1, max(1, ground.rows // 2 // 7500))
    with ground.session(SYSTEM) as connection, filling(connection, ("users", "sessions", "patients", "audit_logs")):
        multiply(connection, "users", copies, {"id": again("id"), "email": "copy || '.' || s.email"})
        multiply(
            connection,
            "sessions",
            copies,
            {"id": again("id"), "user_id": again("user_id"), "token_sha256": hexadecimal("token_sha256")},
        )
        multiply(connection, "patients", copies, {"id": again("id"), "mrn": "s.mrn || '-' || copy"})
        multiply(
            connection,
            "audit_logs",
            copies,
            {"id": None, "user_id": again("user_id"), "created_at": earlier("created_at")},
        )


@claim(SYSTEM, "the four indexes for frequent queries make these faster (no figure)")
def frequent_queries(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    with ground.session(SYSTEM) as connection:
        row = connection.execute("select id, email, organization_id from users order by id desc limit 1").fetchone()
        assert row is not None
        user, email, organization = row
        ways = {
            "a user at sign-in": query(
                "select id, password_hash from users where email = %s and deleted_at is null", email
            ),
            "the sessions of a user": query("select id from sessions where user_id = %s and revoked_at is null", user),
            "what a user did": query(
                "select action, entity from audit_logs where user_id = %s order by created_at desc limit 100", user
            ),
            "the active patients of a practice": query(
                "select id, first_name from patients where organization_id = %s and status = 'active'"
                " order by last_name limit 50",
                organization,
            ),
        }
        found = compared(connection, ways, rounds=ground.rounds, without=_INDEXES)
    return Measured(
        cases=[
            less("all four queries, one after the other", together(found), share=0.2),
            *(less(name, sides, share=0.2) for name, sides in found.items()),
        ]
    )


@claim(SYSTEM, "one query with a JOIN is better than one for each row (no figure)")
def one_query_for_all_rows(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    with ground.session(SYSTEM) as connection:
        found = compared(connection, {"": _one_by_one}, {"": _joined}, rounds=ground.rounds)
    return Measured(
        cases=[less("500 notes with their providers", found[""], share=0.2)],
        because="without a network, whose way each of the 501 queries would take as well",
    )


def _one_by_one(connection: Connection) -> object:
    found = []
    for note in connection.execute(_NOTES).fetchall():
        provider = connection.execute(
            "select first_name, last_name, email from users where id = %s", (note[3],)
        ).fetchone()
        found.append((*note, provider))
    return found


def _joined(connection: Connection) -> object:
    return connection.execute(
        "select n.id, n.status, n.subjective, u.first_name, u.last_name, u.email from notes n"
        " join users u on u.id = n.provider_id order by n.created_at desc limit 500"
    ).fetchall()

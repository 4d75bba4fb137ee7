"""Practices, their patients and encounters, and the notes that grew out of the recordings. Nothing of it happened."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from ...made_up import NOW, PASSWORD_HASH, Seed, generate

#: In the order of loading; the last moment of the data; what each profile is filled with.
TABLES = (
    "organizations", "users", "patients", "icd10_codes", "encounters", "recordings", "transcripts", "notes",
    "note_diagnoses", "note_revisions", "sessions", "audit_logs",
)  # fmt: skip
NEWEST = ("encounters", "ended_at")
SIZES = {"dev": 80, "test": 15, "staging": 2500}

PRACTICES = {
    "Harbour Family Practice": "America/New_York",
    "Elm Street Clinic": "America/Chicago",
    "Lakeside Internal Medicine": "America/Chicago",
    "Mesa Urgent Care": "America/Denver",
    "Pacific Cardiology Group": "America/Los_Angeles",
    "Old Mill Pediatrics": "America/New_York",
}
STAFF = ("provider", "provider", "provider", "nurse", "nurse", "scribe", "admin", "provider")
BROWSERS = ("Firefox", "Safari", "Chrome")
GENERAL = ("Z00.0", "General adult medical examination")


class Case(NamedTuple):
    """Why somebody comes, what is found, what it is, what is done."""

    reason: str
    finding: str
    code: str
    diagnosis: str
    plan: str


CASES = (
    Case("Cough and fever", "Temperature 38.4, crackles at the right base", "J18.9",
         "Pneumonia, unspecified organism", "Amoxicillin for 7 days, return if breathing gets worse"),
    Case("Blood pressure check", "Blood pressure 152 over 94, otherwise well", "I10",
         "Essential (primary) hypertension", "Start lisinopril 10 mg, home readings, return in 4 weeks"),
    Case("Follow-up diabetes", "HbA1c 7.9, feet without findings", "E11.9",
         "Type 2 diabetes mellitus without complications", "Raise metformin to 1000 mg twice daily, dietician"),
    Case("Low back pain", "Straight leg raise negative, no red flags", "M54.5",
         "Low back pain", "Stay active, ibuprofen for 5 days, physiotherapy"),
    Case("Sore throat", "Exudate on both tonsils, rapid strep test positive", "J02.0",
         "Streptococcal pharyngitis", "Penicillin V for 10 days"),
    Case("Tiredness", "Thyroid not enlarged, TSH 7.2", "E03.9",
         "Hypothyroidism, unspecified", "Levothyroxine 50 mcg, TSH again in 6 weeks"),
    Case("Anxiety", "GAD-7 score of 12, no thoughts of self-harm", "F41.1",
         "Generalized anxiety disorder", "Talking therapy referral, sertraline discussed"),
    Case("Rash on the arm", "Dry red patches on both elbows", "L20.9",
         "Atopic dermatitis, unspecified", "Emollient twice daily, hydrocortisone 1 % for one week"),
)  # fmt: skip


def fill(seed: Seed, size: int) -> None:
    """``size`` encounters, and patients for a third of them."""
    practices = [_practice(seed, name) for name in list(PRACTICES)[: max(1, min(6, size // 25))]]
    for number in range(max(6, size // 3)):
        _patient(seed, practices[number % len(practices)], number)
    for code, title in sorted({GENERAL, *((case.code, case.diagnosis) for case in CASES)}):
        seed.add("icd10_codes", code=code, title=title)
    for number, ended in enumerate(seed.times(size, days=365), start=1):
        _encounter(seed, number, ended, last=number == size)
    _sessions(seed, size // 4)
    _audit(seed, size * 3)


def _practice(seed: Seed, name: str) -> str:
    """A practice and its people; every eighth has left."""
    begun = NOW - timedelta(days=700)
    practice = seed.new(
        "organizations", name=name, status="active", time_zone=PRACTICES[name], created_at=begun, updated_at=begun
    )
    for number, role in enumerate(STAFF, start=1):
        first, last, email = seed.person()
        left = seed.ago(90) if number == len(STAFF) else None
        seed.new(
            "users",
            organization_id=practice,
            email=email,
            first_name=first,
            last_name=last,
            role=role,
            npi=f"1{seed.whole(0, 999_999_999):09}" if role == "provider" else None,
            password_hash=PASSWORD_HASH,
            created_at=begun,
            updated_at=left or begun,
            deleted_at=left,
        )
    return practice


def _patient(seed: Seed, practice: str, number: int) -> None:
    first, last, email = seed.person()
    added = NOW - timedelta(days=seed.whole(400, 690))
    seed.new(
        "patients",
        organization_id=practice,
        mrn=f"MRN{10_000 + number}",
        first_name=first,
        last_name=last,
        birth_date=str(date(1930, 1, 1) + timedelta(days=seed.whole(0, 33_000))),
        sex=seed.weighted(female=50, male=47, other=2, unknown=1),
        phone=f"+1-555-01{seed.whole(0, 99):02}",
        email=email if seed.chance(80) else None,
        status=seed.weighted(active=92, inactive=7, deceased=1),
        created_at=added,
        updated_at=added,
    )


def _encounter(seed: Seed, number: int, ended: datetime, *, last: bool) -> None:
    patient = seed.one(seed.rows("patients"))
    practice = patient["organization_id"]
    provider = seed.one([user["id"] for user in _present(seed, practice) if user["role"] == "provider"])
    case = seed.one(CASES)
    status = "completed" if last else seed.weighted(completed=88, cancelled=7, no_show=5)
    began = ended - timedelta(minutes=seed.whole(8, 35))
    done = status == "completed"
    encounter = seed.new(
        "encounters",
        organization_id=practice,
        patient_id=patient["id"],
        provider_id=provider,
        kind=seed.weighted(office=70, telehealth=22, phone=6, home=2),
        status=status,
        reason=case.reason,
        scheduled_at=began - timedelta(minutes=seed.whole(0, 20)),
        started_at=began if done else None,
        ended_at=ended if done else None,
    )
    if not done:
        return
    days = seed.whole(2, 20)
    if seed.chance(85):
        _recording(seed, number, encounter, case, days, began, ended)
    _note(seed, encounter, provider, case, days, ended)


def _recording(
    seed: Seed, number: int, encounter: str, case: Case, days: int, began: datetime, ended: datetime
) -> None:
    duration = int((ended - began).total_seconds()) - seed.whole(20, 200)
    recording = seed.new(
        "recordings",
        encounter_id=encounter,
        storage_key=f"recordings/{number:06}.opus",
        duration_s=duration,
        size_bytes=duration * 4000,
        recorded_at=began,
    )
    text = f"What brings you here? {case.reason}, for {days} days. {case.finding}. So we do this: {case.plan}."
    seed.new(
        "transcripts",
        recording_id=recording,
        language="en",
        model=seed.one(("hearing-2", "hearing-3")),
        content=text,
        word_count=len(text.split()),
        created_at=ended,
    )


def _note(seed: Seed, encounter: str, provider: str, case: Case, days: int, ended: datetime) -> None:
    written = seed.after(ended, 60, 7200)
    status = seed.weighted(signed=85, in_review=10, draft=5)
    signed = seed.after(written, 60, 90_000) if status == "signed" else None
    body = {
        "subjective": f"{case.reason} for {days} days.",
        "objective": f"{case.finding}.",
        "assessment": f"{case.diagnosis}.",
        "plan": f"{case.plan}.",
    }
    note = seed.new(
        "notes",
        encounter_id=encounter,
        provider_id=provider,
        status=status,
        **body,
        created_at=written,
        updated_at=signed or written,
        signed_at=signed,
    )
    seed.add("note_diagnoses", note_id=note, code=case.code, rank=1)
    if seed.chance(15):
        seed.add("note_diagnoses", note_id=note, code=GENERAL[0], rank=2)
    if seed.chance(30):
        before = {**body, "plan": "To be discussed."}
        seed.add("note_revisions", note_id=note, revision=1, author_id=provider, body=before, created_at=written)


def _present(seed: Seed, practice: str) -> list[dict[str, Any]]:
    """Who works at the practice today."""
    return [user for user in seed.rows("users") if user["organization_id"] == practice and user["deleted_at"] is None]


def _sessions(seed: Seed, count: int) -> None:
    for _ in range(count):
        created = seed.ago(60)
        seed.new(
            "sessions",
            user_id=seed.one(seed.rows("users"))["id"],
            token_sha256=seed.sha256(),
            ip_address=seed.ip(),
            user_agent=seed.one(BROWSERS),
            created_at=created,
            expires_at=created + timedelta(hours=12),
            revoked_at=seed.after(created, 600, 30_000) if seed.chance(60) else None,
        )


def _audit(seed: Seed, count: int) -> None:
    for number, when in enumerate(seed.times(count, days=300), start=1):
        patient = seed.one(seed.rows("patients"))
        user = seed.one(_present(seed, patient["organization_id"]))["id"]
        seed.add(
            "audit_logs",
            id=number,
            user_id=None if seed.chance(2) else user,
            action=seed.weighted(view=70, update=15, create=8, sign=5, export=2),
            entity="patient",
            entity_id=patient["id"],
            detail={"screen": seed.one(("chart", "schedule", "search"))},
            ip_address=seed.ip(),
            created_at=when,
        )


if __name__ == "__main__":
    generate(__file__, fill, tables=TABLES, newest=NEWEST, sizes=SIZES)

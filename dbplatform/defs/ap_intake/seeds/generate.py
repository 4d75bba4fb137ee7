"""Vendors and their invoices on the way from the file to the export.

Some are as bad as paper is: sums that are wrong, files that came twice, tax numbers with letters missing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from ...made_up import NOW, PASSWORD_HASH, Seed, generate

#: In the order of loading; the last moment of the data; what each profile is filled with.
TABLES = (
    "users", "vendors", "vendor_bank_accounts", "invoices", "invoice_lines", "invoice_extractions", "validations",
    "exceptions", "approvals", "staged_exports", "audit_log",
)  # fmt: skip
NEWEST = ("invoices", "created_at")
SIZES = {"dev": 120, "test": 24, "staging": 2000}

STAFF = ("clerk", "clerk", "clerk", "approver", "approver", "treasury", "admin")
BRANCHES = ("Office Supplies", "Logistics", "Cleaning", "Software", "Catering", "Packaging", "Electrics", "Consulting")
#: Country: the prefix of its tax numbers, their digits, the length of an IBAN.
COUNTRIES = {"AT": ("ATU", 8, 20), "BE": ("BE", 10, 16), "DE": ("DE", 9, 22), "FR": ("FR", 11, 27), "NL": ("NL", 9, 18)}
BANKS = ("ABNA", "COBA", "BNPA", "GIBA")
GOODS = (
    "Paper A4, box", "Pallet transport", "Cleaning, month", "Licence, seat", "Lunch, person", "Carton 40x30",
    "Cable 3x1.5, metre", "Workshop, day",
)  # fmt: skip
FIELDS = ("invoice_number", "invoice_date", "total_amount", "vendor")


class Flaws(NamedTuple):
    """What is wrong with a document. The first ones are the same in every profile, so that each kind is there."""

    twice: bool
    wrong_sum: bool
    unread: bool
    due_before: bool
    impossible_confidence: bool


def fill(seed: Seed, size: int) -> None:
    """``size`` invoices, and a vendor for every six of them."""
    begun = NOW - timedelta(days=600)
    for role in STAFF:
        first, last, email = seed.person()
        seed.new(
            "users",
            email=email,
            full_name=f"{first} {last}",
            role=role,
            password_hash=PASSWORD_HASH,
            is_active=True,
            created_at=begun,
        )
    for number in range(1, max(4, size // 6) + 1):
        _vendor(seed, number, begun)
    for number, created in enumerate(seed.times(size, days=330), start=1):
        flaws = Flaws(
            twice=number == 5 or seed.chance(0.5 if number > 5 else 0),
            wrong_sum=number == 7 or seed.chance(0.7),
            unread=number == 8 or seed.chance(2),
            due_before=number == 11,
            impossible_confidence=number == 9,
        )
        _invoice(seed, number, created, flaws)


def _vendor(seed: Seed, number: int, begun: datetime) -> None:
    """A vendor with an account; the tax number of the third and the IBAN of the second are cut short."""
    country = seed.one(tuple(COUNTRIES))
    prefix, digits, iban_length = COUNTRIES[country]
    tax_id = f"{prefix}{seed.whole(10 ** (digits - 1), 10**digits - 1)}"
    iban = f"{country}{seed.whole(10 ** (iban_length - 3), 10 ** (iban_length - 2) - 1)}"
    vendor = seed.new(
        "vendors",
        name=f"{seed.person()[1]} {seed.one(BRANCHES)}",
        tax_id=None if number == 4 or seed.chance(2) else tax_id[3:] if number == 3 else tax_id,
        country=country,
        currency="EUR",
        payment_terms_days=seed.one((14, 30, 30, 45)),
        status=seed.weighted(active=93, inactive=4, blocked=3),
        created_at=begun,
        updated_at=begun,
    )
    seed.new(
        "vendor_bank_accounts",
        vendor_id=vendor,
        iban=iban[:-2] if number == 2 else iban,
        bic=f"{seed.one(BANKS)}{country}2X",
        is_primary=True,
        verified_at=begun if seed.chance(90) else None,
        created_at=begun,
    )


def _invoice(seed: Seed, number: int, created: datetime, flaws: Flaws) -> None:
    """A document with its lines; what happened to it follows."""
    vendor = seed.one(seed.rows("vendors"))
    lines = [(seed.one(GOODS), seed.whole(1, 40), seed.whole(200, 18_000)) for _ in range(seed.whole(1, 4))]
    net = sum(quantity * cents for _, quantity, cents in lines)
    tax = round(net * 0.19)
    total = net + tax + (900 if flaws.wrong_sum else 0)
    confidence = {field: round(min(0.999, max(0.4, seed.random.gauss(0.93, 0.06))), 3) for field in FIELDS}
    confidence["overall"] = 1.2 if flaws.impossible_confidence else round(sum(confidence.values()) / len(FIELDS), 3)
    problems = {
        "duplicate": flaws.twice,
        "sum_mismatch": flaws.wrong_sum,
        "missing_field": flaws.unread,
        "low_confidence": confidence["overall"] < 0.88,
    }
    recent = created > NOW - timedelta(days=3)
    lately = created > NOW - timedelta(days=90)
    open_ = any(problems.values()) and (recent or (lately and seed.chance(30)))
    state = "exception" if open_ else "received" if recent and seed.chance(30) else "exported"
    status = "pending" if state != "exported" else seed.weighted(paid=70, approved=25, rejected=5)
    day = (created - timedelta(days=seed.whole(0, 6))).date()
    terms = timedelta(days=vendor["payment_terms_days"])
    invoice = seed.new(
        "invoices",
        vendor_id=None if flaws.unread else vendor["id"],
        file_name=f"invoice-{number:05}.pdf",
        file_hash=seed.rows("invoices")[0]["file_hash"] if flaws.twice else seed.sha256(),
        file_bytes=seed.whole(20_000, 900_000),
        workflow_state=state,
        status=status,
        invoice_number=None if flaws.unread else f"R-{number:06}",
        invoice_date=day,
        due_date=day - terms if flaws.due_before else day + terms,
        currency="EUR",
        net_amount=_euro(net),
        tax_amount=_euro(tax),
        total_amount=_euro(total),
        created_at=created,
        updated_at=created,
    )
    for position, (goods, quantity, cents) in enumerate(lines, start=1):
        seed.new(
            "invoice_lines",
            invoice_id=invoice,
            position=position,
            description=goods,
            quantity=quantity,
            unit_price=_euro(cents),
            amount=_euro(quantity * cents),
        )
    _audit(seed, created, "intake", invoice, "received", {"by": seed.one(("mail", "upload"))})
    if state == "received":
        return
    read = _reading(seed, invoice, created, len(lines), total, confidence, flaws)
    for problem in [name for name, there in problems.items() if there]:
        seed.new(
            "exceptions",
            invoice_id=invoice,
            reason_code=problem,
            severity=seed.one(("low", "medium", "high")),
            details_json={"total": _euro(total)},
            created_at=read,
            resolved_at=None if open_ else seed.after(read, 3600, 400_000),
            resolved_by=None if open_ else seed.rows("users")[0]["id"],
        )
    if state == "exported":
        _decision(seed, invoice, read, status, total)


def _reading(
    seed: Seed, invoice: str, created: datetime, lines: int, total: int, confidence: dict[str, float], flaws: Flaws
) -> datetime:
    """What was read from the file and which rules it passed; when."""
    read = seed.after(created, 2, 90)
    seed.new(
        "invoice_extractions",
        invoice_id=invoice,
        parser_version="reader 2.1",
        extracted_json={"lines": lines, "total": _euro(total)},
        confidence_json=confidence,
        processing_ms=seed.whole(800, 9000),
        created_at=read,
    )
    rules = {"sum": not flaws.wrong_sum, "duplicate": not flaws.twice, "vendor": not flaws.unread}
    seed.new(
        "validations",
        invoice_id=invoice,
        passed=all(rules.values()),
        rules_json=rules,
        rules_version="3",
        created_at=read,
    )
    return read


def _decision(seed: Seed, invoice: str, read: datetime, status: str, total: int) -> None:
    """Somebody approved or rejected it; what was approved goes into the books."""
    decided = seed.after(read, 600, 500_000)
    seed.new(
        "approvals",
        invoice_id=invoice,
        approver_id=seed.one([user["id"] for user in seed.rows("users") if user["role"] == "approver"]),
        decision="rejected" if status == "rejected" else "approved",
        comment="Not ordered" if status == "rejected" else None,
        decided_at=decided,
    )
    _audit(seed, decided, "approver", invoice, "status_changed", {"to": status})
    if status == "rejected":
        return
    sending = seed.weighted(confirmed=90, sent=8, failed=2)
    seed.new(
        "staged_exports",
        invoice_id=invoice,
        destination=seed.one(("erp", "erp", "bank")),
        format=seed.one(("csv", "xml")),
        status=sending,
        payload_json={"total": _euro(total)},
        attempts=3 if sending == "failed" else 1,
        created_at=decided,
        exported_at=None if sending == "failed" else seed.after(decided, 60, 80_000),
    )


def _audit(seed: Seed, when: datetime, actor: str, invoice: str, action: str, detail: dict[str, str]) -> None:
    seed.new(
        "audit_log", occurred_at=when, actor=actor, entity="invoice", entity_id=invoice, action=action, detail=detail
    )


def _euro(cents: int) -> str:
    return f"{cents / 100:.2f}"


if __name__ == "__main__":
    generate(__file__, fill, tables=TABLES, newest=NEWEST, sizes=SIZES)

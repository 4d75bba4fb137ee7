"""Restoration companies, their reports and claims, subscriptions, trials, and everybody who tried to sign in."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ...made_up import NOW, PASSWORD_HASH, Seed, generate

#: In the order of loading; the last moment of the data; what each profile is filled with.
TABLES = (
    "_prisma_migrations", "schema_migrations", "users", "organizations", "organization_members",
    "organization_invitations", "insurance_claims", "reports", "report_line_items", "report_photos",
    "subscription_plans", "subscriptions", "subscription_history", "payments", "webhook_events", "trial_tokens",
    "trial_usage", "device_fingerprints", "sessions", "auth_attempts",
)  # fmt: skip
NEWEST = ("reports", "created_at")
SIZES = {"dev": 80, "test": 20, "staging": 2500}

COMPANIES = (
    "Bayside Restoration", "Coral Coast Drying", "Redgum Property Care", "Southern Cross Restore",
    "Wattle Flood Response", "Ironbark Fire and Water", "Murray Mould Removal", "Harbour City Restore",
    "Outback Make Safe", "Tasman Dry", "Sunshine Storm Repair", "Goldfields Restoration",
)  # fmt: skip
STAFF = ("owner", "admin", "technician", "technician", "technician", "viewer")
INSURERS = ("Southern Mutual", "Federation Insurance", "Koala General", "Pacific Home", "Eucalypt Underwriting")
POSTCODES = {"NSW": 2000, "VIC": 3000, "QLD": 4000, "SA": 5000, "WA": 6000, "TAS": 7000, "NT": 800, "ACT": 2600}
STREETS = ("Banksia Street", "Acacia Avenue", "Station Road", "Beach Parade", "Grevillea Court", "Mill Lane")
ROOMS = ("Kitchen", "Hall", "Bedroom")
CAPTIONS = ("Ceiling", "Floor covering", "Moisture reading", "Source of the leak", None)
BROWSERS = ("Firefox", "Safari", "Chrome")
#: Category, description, least and most quantity, lowest and highest price.
ITEMS = (
    ("labour", "Technician, hours", 4, 40, 68, 95),
    ("labour", "Supervisor, hours", 1, 8, 98, 130),
    ("equipment", "Air mover, days", 4, 60, 28, 40),
    ("equipment", "Dehumidifier, days", 2, 30, 70, 110),
    ("materials", "Antimicrobial, litres", 1, 20, 18, 32),
    ("materials", "Plasterboard, square metres", 2, 60, 14, 25),
    ("disposal", "Skip bin", 1, 3, 280, 460),
    ("travel", "Kilometres", 10, 240, 0.85, 1.2),
)
#: Code: name, monthly price, reports per month.
PLANS = {
    "trial": ("Free trial", 0, 3),
    "starter": ("Starter", 49, 20),
    "team": ("Team", 149, 120),
    "unlimited": ("Unlimited", 399, None),
}


def fill(seed: Seed, size: int) -> None:
    """``size`` reports, and a company for twenty of them."""
    _former_runners(seed)
    companies = [_company(seed, name) for name in COMPANIES[: max(2, size // 20)]]
    for number, created in enumerate(seed.times(size, days=360), start=1):
        _report(seed, number, seed.one(companies), created)
    for code, (name, price, reports) in PLANS.items():
        seed.new(
            "subscription_plans",
            code=code,
            name=name,
            monthly_price=price,
            reports_per_month=reports,
            is_active=True,
        )
    for company in companies:
        _subscription(seed, company, trial=company == companies[-1])
    for member in seed.rows("organization_members"):
        if member["role"] in ("owner", "admin"):
            _trial(seed, member["user_id"])
    _sessions(seed, size // 4)
    _auth_attempts(seed, size)


def _former_runners(seed: Seed) -> None:
    """What Prisma and the custom runner had written about themselves."""
    begun = NOW - timedelta(days=540)
    for name in ("20250301090000_init", "20250402110000_sessions"):
        seed.new(
            "_prisma_migrations",
            checksum=seed.sha256(),
            finished_at=begun,
            migration_name=name,
            logs=None,
            rolled_back_at=None,
            started_at=begun,
            applied_steps_count=1,
        )
    for number, name in enumerate(("trials", "device_fingerprints"), start=1):
        seed.add("schema_migrations", version=f"{number:03}", name=name, applied_at=begun)


def _company(seed: Seed, name: str) -> str:
    """A company, its people and whom it has invited; the owner is the first."""
    joined = NOW - timedelta(days=seed.whole(380, 520))
    people = []
    for role in STAFF:
        first, last, email = seed.person()
        user = seed.new(
            "users",
            email=email,
            password_hash=PASSWORD_HASH,
            full_name=f"{first} {last}",
            role=role,
            email_verified_at=joined if seed.chance(95) else None,
            last_login_at=seed.ago(30) if seed.chance(90) else None,
            created_at=joined,
            updated_at=joined,
        )
        people.append((user, role))
    company = seed.new(
        "organizations",
        name=name,
        slug=name.lower().replace(" ", "-"),
        owner_id=people[0][0],
        abn=str(seed.whole(10_000_000_000, 99_999_999_999)),
        settings={"tax": "GST", "currency": "AUD"},
        created_at=joined,
        updated_at=joined,
    )
    for user, role in people:
        seed.new("organization_members", organization_id=company, user_id=user, role=role, joined_at=joined)
    for _ in range(2):
        created = seed.ago(60)
        seed.new(
            "organization_invitations",
            organization_id=company,
            invited_by=people[0][0],
            email=seed.person()[2],
            role="technician",
            token_sha256=seed.sha256(),
            expires_at=created + timedelta(days=7),
            accepted_at=seed.after(created, 600, 90_000) if seed.chance(50) else None,
            created_at=created,
        )
    return company


def _report(seed: Seed, number: int, company: str, created: datetime) -> None:
    """A report with its items and photos, mostly behind a claim."""
    claim = None
    if seed.chance(70):
        claim = seed.new(
            "insurance_claims",
            organization_id=company,
            claim_number=f"CLM-{100_000 + number}",
            insurer_name=seed.one(INSURERS),
            policy_number=f"P{seed.whole(1_000_000, 9_999_999)}",
            status=seed.weighted(open=15, assessing=15, approved=40, declined=5, closed=25),
            loss_date=(created - timedelta(days=seed.whole(0, 20))).date(),
            excess_amount=seed.one((0, 250, 500, 1000)),
            created_at=created,
            updated_at=created,
        )
    author = seed.one(
        [
            member["user_id"]
            for member in seed.rows("organization_members")
            if member["organization_id"] == company and member["role"] != "viewer"
        ]
    )
    items = [_item(seed) for _ in range(seed.whole(2, 6))]
    total = sum(item["quantity"] * round(item["unit_price"] * 100) for item in items)
    damage = seed.weighted(water=45, storm=20, fire=12, mould=12, flood=9, biohazard=2)
    status = seed.weighted(completed=70, in_review=12, draft=13, archived=5)
    state = seed.one(tuple(POSTCODES))
    rooms = [{"name": room, "moisture": seed.whole(8, 48)} for room in ROOMS[: seed.whole(1, 3)]]
    report = seed.new(
        "reports",
        report_number=f"RA-{number:06}",
        organization_id=company,
        created_by=author,
        claim_id=claim,
        title=f"{damage.capitalize()} damage",
        damage_type=damage,
        status=status,
        property_address=f"{seed.whole(1, 240)} {seed.one(STREETS)}",
        property_postcode=f"{POSTCODES[state] + seed.whole(0, 99):04}",
        state=state,
        content={"rooms": rooms},
        total_cost=f"{total / 100:.2f}",
        created_at=created,
        updated_at=created,
        completed_at=seed.after(created, 3600, 400_000) if status in ("completed", "archived") else None,
    )
    for position, item in enumerate(items, start=1):
        seed.new("report_line_items", report_id=report, position=position, **item)
    for _ in range(seed.whole(0, 3)):
        seed.new(
            "report_photos",
            report_id=report,
            uploaded_by=author,
            storage_key=f"photos/{seed.following('report_photos'):06}.jpg",
            caption=seed.one(CAPTIONS),
            taken_at=seed.after(created, 0, 3600),
            exif={"device": seed.one(("tablet", "phone"))},
        )


def _item(seed: Seed) -> dict[str, Any]:
    category, description, least, most, low, high = seed.one(ITEMS)
    return {
        "category": category,
        "description": description,
        "quantity": seed.whole(least, most),
        "unit_price": seed.amount(low, high),
    }


def _subscription(seed: Seed, company: str, *, trial: bool) -> None:
    """A subscription, renewed every 30 days, and what the payment provider told of it."""
    code = "trial" if trial else seed.one(("starter", "team", "unlimited"))
    status = "trialing" if trial else seed.weighted(active=85, past_due=10, cancelled=5)
    begun = NOW - timedelta(days=30 * seed.whole(3, 11) + seed.whole(1, 20))
    renewals = [] if trial else [begun + timedelta(days=30 * month) for month in range(1, (NOW - begun).days // 30 + 1)]
    renewed = [begun, *renewals][-1]
    subscription = seed.new(
        "subscriptions",
        organization_id=company,
        plan_id=next(plan["id"] for plan in seed.rows("subscription_plans") if plan["code"] == code),
        stripe_subscription_id=f"sub_{seed.following('subscriptions'):014}",
        status=status,
        current_period_start=renewed,
        current_period_end=renewed + timedelta(days=30),
        cancelled_at=renewed if status == "cancelled" else None,
        created_at=begun,
    )
    seed.new(
        "subscription_history", subscription_id=subscription, event="created", detail={"plan": code}, created_at=begun
    )
    for when in renewals:
        paid = seed.weighted(succeeded=95, failed=4, refunded=1)
        intent = f"pi_{seed.following('payments'):014}"
        seed.new(
            "payments",
            subscription_id=subscription,
            stripe_payment_intent_id=intent,
            amount=PLANS[code][1],
            currency="AUD",
            status=paid,
            created_at=when,
        )
        seed.new(
            "webhook_events",
            stripe_event_id=f"evt_{seed.following('webhook_events'):014}",
            type=f"payment_intent.{paid}",
            payload={"payment_intent": intent},
            received_at=when,
            processed_at=seed.after(when, 1, 20) if seed.chance(98) else None,
        )
        seed.new("subscription_history", subscription_id=subscription, event="renewed", detail={}, created_at=when)


def _trial(seed: Seed, user: str) -> None:
    created = seed.ago(200)
    expires, reports = created + timedelta(days=14), seed.whole(0, 3)
    token = seed.new(
        "trial_tokens",
        user_id=user,
        token_sha256=seed.sha256(),
        status="expired" if expires < NOW else "active",
        reports_remaining=3 - reports,
        created_at=created,
        expires_at=expires,
    )
    for action in ("activated", *["report_created"] * reports):
        used = seed.after(created, 60, 900_000)
        seed.new("trial_usage", trial_token_id=token, action=action, detail={}, used_at=used)
    seen = seed.after(created, 10, 900)
    seed.new(
        "device_fingerprints",
        user_id=user,
        fingerprint=seed.sha256()[:32],
        ip_address=seed.ip(),
        is_blocked=seed.chance(4),
        first_seen_at=seen,
        last_seen_at=seed.after(seen, 0, 800_000),
    )


def _sessions(seed: Seed, count: int) -> None:
    for _ in range(count):
        created = seed.ago(30)
        seed.new(
            "sessions",
            user_id=seed.one(seed.rows("users"))["id"],
            token_sha256=seed.sha256(),
            ip_address=seed.ip(),
            user_agent=seed.one(BROWSERS),
            created_at=created,
            expires_at=created + timedelta(days=7),
            revoked_at=seed.after(created, 60, 90_000) if seed.chance(20) else None,
        )


def _auth_attempts(seed: Seed, count: int) -> None:
    for number in range(1, count + 1):
        user = seed.one(seed.rows("users"))
        reason = seed.weighted(none=85, wrong_password=10, unverified=2, unknown_user=3)
        known, succeeded = reason != "unknown_user", reason == "none"
        seed.new(
            "auth_attempts",
            user_id=user["id"] if known else None,
            email=user["email"] if known else f"nobody{number}@example.com",
            ip_address=seed.ip(),
            user_agent=seed.one(BROWSERS),
            succeeded=succeeded,
            failure_reason=None if succeeded else reason,
            attempted_at=seed.ago(90),
        )


if __name__ == "__main__":
    generate(__file__, fill, tables=TABLES, newest=NEWEST, sizes=SIZES)

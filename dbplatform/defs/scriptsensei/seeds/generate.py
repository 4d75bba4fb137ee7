"""Prescriptions, what two models read in them, and what pharmacists made of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from ...made_up import NOW, Seed, generate

#: In the order of loading; the last moment of the data; what each profile is filled with.
TABLES = ("extraction_configs", "reviewers", "prescriptions", "extraction_results", "field_reviews")
NEWEST = ("prescriptions", "uploaded_at")
SIZES = {"dev": 60, "test": 12, "staging": 1500}

#: How sure each model is, on average.
MODELS = {"vision-large": 0.94, "vision-small": 0.86}
CONFIGS = {"standard": (2, 0.80), "strict": (2, 0.95), "fast": (1, 0.75)}
FIELDS = ("patient_name", "medication", "strength", "dosage", "quantity", "prescriber")
MEDICATIONS = {
    "Amoxicillin": "500 mg", "Atorvastatin": "20 mg", "Levothyroxine": "75 mcg", "Lisinopril": "10 mg",
    "Metformin": "850 mg", "Omeprazole": "20 mg", "Salbutamol": "100 mcg", "Sertraline": "50 mg",
}  # fmt: skip
DOSAGES = ("1 tablet daily", "1 tablet twice daily", "2 puffs as needed", "1 capsule at night", "1 tablet with food")
ERRORS = ("file is not readable", "model did not answer within 60 s", "no text found on the page")


def fill(seed: Seed, size: int) -> None:
    """``size`` prescriptions."""
    begun = NOW - timedelta(days=300)
    for number, (name, (models, threshold)) in enumerate(CONFIGS.items(), start=1):
        seed.add(
            "extraction_configs",
            id=number,
            name=name,
            model_names=list(MODELS)[:models],
            fields=list(FIELDS),
            confidence_threshold=threshold,
            is_default=number == 1,
            created_at=begun,
            updated_at=begun,
        )
    for number in range(1, 5):
        first, last, email = seed.person()
        seed.new(
            "reviewers",
            email=email,
            full_name=f"{first} {last}",
            licence_number=f"PH{40_000 + 37 * number}",
            created_at=begun,
        )
    for number, uploaded in enumerate(seed.times(size, days=180), start=1):
        waiting = number > size - max(2, size // 60)
        _prescription(seed, number, uploaded, waiting=waiting)
    _reviews(seed)


def _prescription(seed: Seed, number: int, uploaded: datetime, *, waiting: bool) -> None:
    """One scan; where it was read, a result for each field and model."""
    status = seed.weighted(queued=3, processing=1) if waiting else seed.weighted(completed=90, needs_review=7, failed=3)
    started = None if status == "queued" else seed.after(uploaded, 1, 30)
    done = None if started is None or status == "processing" else seed.after(started, 2, 25)
    config = seed.one((1, 1, 1, 2, 3))
    kind = seed.one(("pdf", "jpeg", "png"))
    prescription = seed.new(
        "prescriptions",
        config_id=config,
        file_name=f"scan-{number:05}.{kind}",
        mime_type="application/pdf" if kind == "pdf" else f"image/{kind}",
        file_bytes=seed.whole(40_000, 4_000_000),
        file_sha256=seed.sha256(),
        status=status,
        error_message=seed.one(ERRORS) if status == "failed" else None,
        uploaded_at=uploaded,
        started_at=started,
        completed_at=done,
    )
    if status not in ("completed", "needs_review"):
        return
    first, last, _ = seed.person()
    medication = seed.one(tuple(MEDICATIONS))
    quantity, prescriber = str(seed.one((7, 14, 28, 30, 60))), f"Dr {seed.person()[1]}"
    truth = (f"{first} {last}", medication, MEDICATIONS[medication], seed.one(DOSAGES), quantity, prescriber)
    for model in list(MODELS)[: 1 if config == 3 else 2]:
        for field, value in zip(FIELDS, truth, strict=True):
            missing = seed.chance(2)
            sureness = 0.0 if missing else min(0.999, max(0.2, seed.random.gauss(MODELS[model], 0.05)))
            seed.add(
                "extraction_results",
                id=seed.following("extraction_results"),
                prescription_id=prescription,
                model_name=model,
                field_name=field,
                field_value=None if missing else value,
                confidence=round(sureness, 3),
                processing_ms=seed.whole(180, 2400),
                created_at=done,
            )


def _reviews(seed: Seed) -> None:
    """Most of what a model was not sure of was looked at."""
    for result in seed.rows("extraction_results"):
        if result["confidence"] >= 0.8 or not seed.chance(70):
            continue
        value = result["field_value"]
        decision = "rejected" if value is None else seed.weighted(accepted=6, corrected=3)
        seed.add(
            "field_reviews",
            id=seed.following("field_reviews"),
            extraction_result_id=result["id"],
            reviewer_id=seed.one(seed.rows("reviewers"))["id"],
            decision=decision,
            corrected_value=f"{value} (checked)" if decision == "corrected" else None,
            reviewed_at=seed.after(result["created_at"], 60, 40_000),
        )


if __name__ == "__main__":
    generate(__file__, fill, tables=TABLES, newest=NEWEST, sizes=SIZES)

"""Document 000, but for push: its six indexes, and the pool of ten."""

from __future__ import annotations

from benchmarks.claims.ground import Ground, again, earlier, filling, hexadecimal, multiply
from benchmarks.claims.measuring import compared, query, throughput, together
from benchmarks.claims.registry import Measured, Sides, claim, less, more
from dbplatform.postgres.pools import PoolSettings

SYSTEM = "scriptsensei"
QUEUE = "select * from processing_queue order by uploaded_at limit 50"
_INDEXES = (
    "idx_prescriptions_status",
    "idx_prescriptions_uploaded_at",
    "idx_extraction_results_prescription_id",
    "idx_extraction_results_model_name",
    "idx_extraction_results_field_name",
    "idx_extraction_configs_is_default",
)


def grow(ground: Ground) -> None:
    """A prescription for every ten rows; with two models and six fields that makes a result for each row."""
    copies = range(1, max(1, ground.rows // 10 // 1500))
    with ground.session(SYSTEM) as connection, filling(connection, ("prescriptions", "extraction_results")):
        multiply(
            connection,
            "prescriptions",
            copies,
            {"id": again("id"), "file_sha256": hexadecimal("file_sha256"), "uploaded_at": earlier("uploaded_at")},
        )
        multiply(connection, "extraction_results", copies, {"id": None, "prescription_id": again("prescription_id")})


@claim(SYSTEM, "with the six indexes queries take about 60 % less time")
def six_indexes(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    with ground.session(SYSTEM) as connection:
        row = connection.execute("select prescription_id from extraction_results order by id desc limit 1").fetchone()
        assert row is not None
        ways = {
            "the newest of a state": query(
                "select id, file_name from prescriptions where status = 'queued' order by uploaded_at desc limit 20"
            ),
            "the queue": query(QUEUE),
            "the results of a prescription": query(
                "select model_name, field_name, confidence from extraction_results where prescription_id = %s", row[0]
            ),
            "how sure a model is": query(
                "select avg(confidence) from extraction_results where model_name = 'vision-small'"
            ),
            "how sure a field is": query(
                "select avg(confidence) from extraction_results where field_name = 'medication'"
            ),
            "the default configuration": query("select * from extraction_configs where is_default"),
        }
        found = compared(connection, ways, rounds=ground.rounds, without=_INDEXES)
    return Measured(
        cases=[
            less("all six queries, one after the other", together(found), share=0.6),
            *(less(name, sides, share=0.6) for name, sides in found.items()),
        ],
        because="the unique key on prescription, model and field serves the results of a prescription by itself",
    )


@claim(SYSTEM, "half the connections, 10 for 20, cost less and serve as many")
def pool_of_ten(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    calls: dict[int, list[float]] = {20: [], 10: []}
    memory: dict[int, list[float]] = {20: [], 10: []}
    for number in range(min(ground.rounds, 3)):
        for size in (20, 10) if number % 2 == 0 else (10, 20):
            settings = PoolSettings(size=size, max_overflow=0, timeout_s=30, idle_s=60)
            rate, held = throughput(
                ground.url(SYSTEM), query(QUEUE), clients=20, settings=settings, seconds=min(ground.seconds, 3)
            )
            calls[size].append(rate)
            memory[size].append(held)
    return Measured(
        cases=[
            less("memory of the sessions", Sides(before=memory[20], after=memory[10]), share=0.4, unit="MB"),
            more(
                "queries a second of 20 callers on 2 processors",
                Sides(before=calls[20], after=calls[10]),
                times=0.95,
                unit="a second",
            ),
        ]
    )

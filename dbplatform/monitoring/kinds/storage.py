"""Metrics of what lies on the disk: sizes, dead rows, vacuum, bloat, indexes, sequences, ids that run out."""

from __future__ import annotations

from dbplatform.monitoring.kind import Kind, manual

_VACUUM = manual("routine-vacuuming.html")
_SIZES = manual("diskusage.html")
_INDEXES = manual("monitoring-stats.html#MONITORING-PG-STAT-ALL-INDEXES-VIEW")
_REINDEX = manual("routine-reindex.html")

STORAGE = (
    Kind(
        name="database_bytes",
        unit="bytes",
        meaning="Size of the database on disk.",
        advice="See which tables grow; archive or retire old rows, or give the disk more room.",
        document=_SIZES,
    ),
    Kind(
        name="database_growth",
        unit="bytes_per_second",
        meaning="How fast the database grows, since the previous collection; it may shrink.",
        advice="See which tables grow; archive or retire old rows, or give the disk more room.",
        document=_SIZES,
        sample_unit="seconds",
    ),
    Kind(
        name="tables_bytes",
        unit="bytes",
        meaning="Size of all tables with their out-of-line values, without indexes.",
        advice="The largest ones are listed; archive or retire old rows.",
        document=_SIZES,
    ),
    Kind(
        name="indexes_bytes",
        unit="bytes",
        meaning="Size of all indexes of tables.",
        advice="See unused_indexes and index_bloat_ratio.",
        document=_SIZES,
    ),
    Kind(
        name="dead_tuple_ratio",
        unit="ratio",
        meaning="Dead rows of the worst table with more than 10,000 of them, of all its rows.",
        advice="VACUUM (ANALYZE) that table; lower its autovacuum_vacuum_scale_factor; see what holds vacuum back: "
        "old transactions, replication slots.",
        document=_VACUUM,
        warn=">= 10%",
        critical=">= 30%",
        sample_unit="dead rows",
        min_sample_critical=100_000,
        points=(5, 15),
    ),
    Kind(
        name="vacuum_due_tables",
        unit="count",
        meaning="Tables with more dead rows than autovacuum waits for.",
        advice="Few are normal. If their number stays: more autovacuum_max_workers, less autovacuum_vacuum_cost_delay; "
        "see what holds vacuum back: old transactions, replication slots.",
        document=_VACUUM,
    ),
    Kind(
        name="vacuum_age_s",
        unit="seconds",
        meaning="Time since the last vacuum of the table that is due and has waited longest.",
        advice="VACUUM (ANALYZE) that table; see whether autovacuum is off for it or is held back.",
        document=_VACUUM,
        sample_unit="dead rows",
    ),
    Kind(
        name="analyze_due_tables",
        unit="count",
        meaning="Tables with more changed rows since the last ANALYZE than autovacuum waits for.",
        advice="Few are normal. If their number stays: ANALYZE them; more autovacuum_max_workers.",
        document=_VACUUM,
    ),
    Kind(
        name="analyze_age_s",
        unit="seconds",
        meaning="Time since the last ANALYZE of the table that is due and has waited longest.",
        advice="ANALYZE that table: plans rest on its statistics.",
        document=_VACUUM,
        sample_unit="changed rows",
    ),
    Kind(
        name="table_bloat_ratio",
        unit="ratio",
        meaning="Estimated share of the worst large table that holds neither rows nor what they need.",
        advice="Prove it: dbplatform metrics --exact; VACUUM lets new rows use the room; pg_repack or VACUUM FULL "
        "(locks the table) gives it back.",
        document=_VACUUM,
        warn=">= 40%",
        critical=">= 70%",
        sample_unit="unused bytes",
        min_sample=200 << 20,
        min_sample_critical=200 << 20,
        points=(5, 15),
    ),
    Kind(
        name="index_bloat_ratio",
        unit="ratio",
        meaning="Estimated share of the worst large B-tree index that holds no entries.",
        advice="Prove it: dbplatform metrics --exact; REINDEX INDEX CONCURRENTLY it.",
        document=_REINDEX,
        warn=">= 40%",
        critical=">= 70%",
        sample_unit="unused bytes",
        min_sample=100 << 20,
        min_sample_critical=100 << 20,
        points=(5, 15),
    ),
    Kind(
        name="xid_age_ratio",
        unit="ratio",
        meaning="Age of the oldest transaction id of the server's databases, of the 2^31 at which it stops.",
        advice="VACUUM (FREEZE) the oldest tables of that database; end old transactions, prepared ones and stale "
        "slots first.",
        document=manual("routine-vacuuming.html#VACUUM-FOR-WRAPAROUND"),
        warn=">= 50%",
        critical=">= 75%",
        points=(20, 50),
    ),
    Kind(
        name="multixact_age_ratio",
        unit="ratio",
        meaning="Age of the oldest multixact id of the server's databases, of the 2^31 at which it stops.",
        advice="VACUUM (FREEZE) the oldest tables of that database; end old transactions first. Row locks shared by "
        "many sessions use such ids.",
        document=manual("routine-vacuuming.html#VACUUM-FOR-MULTIXACT-WRAPAROUND"),
        warn=">= 50%",
        critical=">= 75%",
        points=(20, 50),
    ),
    Kind(
        name="sequence_used_ratio",
        unit="ratio",
        meaning="How far the sequence nearest to its end has come; the end is that of its column, if that is smaller.",
        advice="Change the column and its sequence to bigint before the inserts fail.",
        document=manual("sql-altersequence.html"),
        warn=">= 75%",
        critical=">= 90%",
        points=(15, 40),
    ),
    Kind(
        name="invalid_indexes",
        unit="count",
        meaning="Indexes that a failed CREATE or REINDEX CONCURRENTLY left: they cost writes and serve no query.",
        advice="DROP INDEX CONCURRENTLY it and build it again, or REINDEX INDEX CONCURRENTLY.",
        document=manual("sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"),
    ),
    Kind(
        name="unused_indexes",
        unit="count",
        meaning="Indexes of 10 MB and more that no query has used since the statistics began and that no constraint "
        "needs.",
        advice="See whether a replica uses them; then DROP INDEX CONCURRENTLY.",
        document=_INDEXES,
    ),
    Kind(
        name="index_use_ratio",
        unit="ratio",
        meaning="Scans by an index, of all scans of tables with more than 10,000 rows since the previous collection.",
        advice="See which of the listed tables are read whole, and by which statements: dbplatform slow-queries.",
        document=_INDEXES,
        sample_unit="scans",
        min_sample=1_000,
        min_sample_critical=1_000,
    ),
    Kind(
        name="index_hit_ratio",
        unit="ratio",
        meaning="Blocks of indexes found in shared buffers, of all that were asked for since the previous collection.",
        advice="The indexes in use do not fit into shared_buffers: drop unused ones, rebuild bloated ones, then raise "
        "it.",
        document=manual("monitoring-stats.html#MONITORING-PG-STATIO-ALL-INDEXES-VIEW"),
        sample_unit="blocks",
        min_sample=10_000,
        min_sample_critical=10_000,
    ),
)

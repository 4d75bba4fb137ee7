-- The archive of old snapshots reads by time.
create index concurrently idx_extraction_snapshots_created_at
    on workflow_extraction_snapshots (created_at);

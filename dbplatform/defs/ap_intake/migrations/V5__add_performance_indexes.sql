-- Built while the application works: each statement runs by itself, outside a transaction.

-- Files that arrived twice.
create index concurrently idx_invoices_file_hash_created
    on invoices (file_hash, created_at);

-- The work list of each state.
create index concurrently idx_invoices_workflow_status_created
    on invoices (workflow_state, status, created_at);

-- Open exceptions, and how long they stay open.
create index concurrently idx_exceptions_resolved_created
    on exceptions (resolved_at, created_at);

-- The invoices of a vendor over time.
create index concurrently idx_invoices_vendor_created_status
    on invoices (vendor_id, created_at, status);

-- Confidence over time.
create index concurrently idx_extractions_created_confidence
    on invoice_extractions (created_at, ((confidence_json ->> 'overall')::double precision));

-- How many invoices pass.
create index concurrently idx_validations_passed_created
    on validations (passed, created_at);

-- What still has to be exported.
create index concurrently idx_staged_exports_status_created
    on staged_exports (status, created_at);

create table invoice_extractions (
    id uuid primary key default gen_random_uuid(),
    invoice_id uuid not null references invoices on delete cascade,
    parser_version text not null,
    extracted_json jsonb not null,
    confidence_json jsonb not null,
    processing_ms integer not null check (processing_ms >= 0),
    created_at timestamptz not null default now()
);
comment on table invoice_extractions is 'What was read from a document, and how sure the reader was of each field.';
comment on column invoice_extractions.confidence_json is 'A number from 0 to 1 per field, and as "overall".';
create index invoice_extractions_invoice_idx on invoice_extractions (invoice_id, created_at desc);

create table validations (
    id uuid primary key default gen_random_uuid(),
    invoice_id uuid not null references invoices on delete cascade,
    passed boolean not null,
    rules_json jsonb not null,
    rules_version text not null,
    created_at timestamptz not null default now()
);
comment on table validations is 'The business rules applied to an invoice, each with its result.';
create index validations_invoice_idx on validations (invoice_id, created_at desc);

create table exceptions (
    id uuid primary key default gen_random_uuid(),
    invoice_id uuid not null references invoices on delete cascade,
    reason_code text not null check (reason_code in
        ('duplicate', 'unknown_vendor', 'sum_mismatch', 'low_confidence', 'missing_field', 'blocked_vendor')),
    severity text not null check (severity in ('low', 'medium', 'high')),
    details_json jsonb not null default '{}',
    created_at timestamptz not null default now(),
    resolved_at timestamptz,
    resolved_by uuid references users,
    check ((resolved_at is null) = (resolved_by is null)),
    check (resolved_at >= created_at)
);
comment on table exceptions is 'What a person must look at.';
create index exceptions_invoice_idx on exceptions (invoice_id);

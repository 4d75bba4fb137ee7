create table approvals (
    id uuid primary key default gen_random_uuid(),
    invoice_id uuid not null references invoices on delete cascade,
    approver_id uuid not null references users,
    decision text not null check (decision in ('approved', 'rejected')),
    comment text,
    decided_at timestamptz not null default now(),
    unique (invoice_id, approver_id)
);
create index approvals_approver_idx on approvals (approver_id, decided_at desc);

create table staged_exports (
    id uuid primary key default gen_random_uuid(),
    invoice_id uuid not null references invoices on delete cascade,
    destination text not null check (destination in ('erp', 'bank', 'archive')),
    format text not null check (format in ('csv', 'json', 'xml')),
    status text not null default 'staged' check (status in ('staged', 'sent', 'confirmed', 'failed')),
    payload_json jsonb not null,
    attempts integer not null default 0 check (attempts >= 0),
    created_at timestamptz not null default now(),
    exported_at timestamptz,
    check (status not in ('sent', 'confirmed') or exported_at is not null)
);
comment on table staged_exports is 'Approved invoices on their way into other systems.';
create index staged_exports_invoice_idx on staged_exports (invoice_id);

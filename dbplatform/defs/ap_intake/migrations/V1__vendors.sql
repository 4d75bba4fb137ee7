create table vendors (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    tax_id text,
    country text not null check (country ~ '^[A-Z]{2}$'),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    payment_terms_days integer not null default 30 check (payment_terms_days between 0 and 180),
    status text not null default 'active' check (status in ('active', 'blocked', 'inactive')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table vendors is 'Who sends invoices.';
create index vendors_name_idx on vendors (lower(name));

create table vendor_bank_accounts (
    id uuid primary key default gen_random_uuid(),
    vendor_id uuid not null references vendors on delete cascade,
    iban text not null,
    bic text not null check (bic ~ '^[A-Z]{6}[A-Z0-9]{2}([A-Z0-9]{3})?$'),
    is_primary boolean not null default false,
    verified_at timestamptz,
    created_at timestamptz not null default now(),
    unique (vendor_id, iban)
);
comment on table vendor_bank_accounts is 'Where vendors are paid: sensitive.';
create unique index vendor_bank_accounts_one_primary on vendor_bank_accounts (vendor_id) where is_primary;

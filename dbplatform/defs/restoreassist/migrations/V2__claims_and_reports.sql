-- The heart of the product: a report on a damaged property, with or without an insurance claim behind it.

create table insurance_claims (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations,
    claim_number text not null,
    insurer_name text not null,
    policy_number text,
    status text not null default 'open' check (status in ('open', 'assessing', 'approved', 'declined', 'closed')),
    loss_date date not null,
    excess_amount numeric(12, 2) not null default 0 check (excess_amount >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, claim_number)
);
create index idx_insurance_claims_status on insurance_claims (organization_id, status);
create index idx_insurance_claims_insurer_name on insurance_claims (insurer_name);
create index idx_insurance_claims_loss_date on insurance_claims (loss_date);
create index idx_insurance_claims_created_at on insurance_claims (created_at);

create table reports (
    id uuid primary key default gen_random_uuid(),
    report_number text not null unique,
    organization_id uuid not null references organizations,
    created_by uuid not null references users,
    claim_id uuid references insurance_claims,
    title text not null,
    damage_type text not null check (damage_type in ('water', 'fire', 'storm', 'mould', 'flood', 'biohazard')),
    status text not null default 'draft' check (status in ('draft', 'in_review', 'completed', 'archived')),
    property_address text not null,
    property_postcode text not null check (property_postcode ~ '^[0-9]{4}$'),
    state text not null check (state in ('ACT', 'NSW', 'NT', 'QLD', 'SA', 'TAS', 'VIC', 'WA')),
    content jsonb not null default '{}',
    total_cost numeric(12, 2) not null default 0 check (total_cost >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    completed_at timestamptz
);
comment on column reports.total_cost is 'Sum of the line items, without tax, in Australian dollars.';
create index idx_reports_created_by on reports (created_by);
create index idx_reports_claim_id on reports (claim_id);
create index idx_reports_status on reports (status);
create index idx_reports_damage_type on reports (damage_type);
create index idx_reports_property_postcode on reports (property_postcode);
create index idx_reports_total_cost on reports (total_cost);
create index idx_reports_completed_at on reports (completed_at);

create table report_line_items (
    id uuid primary key default gen_random_uuid(),
    report_id uuid not null references reports on delete cascade,
    position integer not null check (position > 0),
    category text not null check (category in ('labour', 'equipment', 'materials', 'disposal', 'travel')),
    description text not null,
    quantity numeric(10, 2) not null check (quantity > 0),
    unit_price numeric(12, 2) not null check (unit_price >= 0),
    amount numeric(12, 2) not null generated always as (round(quantity * unit_price, 2)) stored,
    unique (report_id, position)
);
create index idx_report_line_items_category on report_line_items (category);
create index idx_report_line_items_report_category on report_line_items (report_id, category);

create table report_photos (
    id uuid primary key default gen_random_uuid(),
    report_id uuid not null references reports on delete cascade,
    uploaded_by uuid not null references users,
    storage_key text not null unique,
    caption text,
    taken_at timestamptz not null,
    exif jsonb
);
create index idx_report_photos_report_id on report_photos (report_id, taken_at);
create index idx_report_photos_uploaded_by on report_photos (uploaded_by);

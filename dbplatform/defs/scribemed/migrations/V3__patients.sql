create table patients (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations,
    mrn text not null,
    first_name text not null,
    last_name text not null,
    birth_date date not null,
    sex text not null check (sex in ('female', 'male', 'other', 'unknown')),
    phone text,
    email text,
    status text not null default 'active' check (status in ('active', 'inactive', 'deceased')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, mrn)
);
comment on table patients is 'Patients of one organization.';
comment on column patients.mrn is 'Medical record number, unique within the organization.';

create trigger patients_updated before update on patients
    for each row execute function set_updated_at();

create table encounters (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations,
    patient_id uuid not null references patients,
    provider_id uuid not null references users,
    kind text not null check (kind in ('office', 'telehealth', 'phone', 'home')),
    status text not null default 'scheduled'
        check (status in ('scheduled', 'in_progress', 'completed', 'cancelled', 'no_show')),
    reason text not null,
    scheduled_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    check (ended_at > started_at),
    check (status <> 'completed' or ended_at is not null)
);
comment on table encounters is 'A visit of a patient, planned or done.';

create index encounters_patient_idx on encounters (patient_id, scheduled_at desc);
create index encounters_provider_idx on encounters (provider_id, scheduled_at desc);
create index encounters_organization_idx on encounters (organization_id, scheduled_at desc);

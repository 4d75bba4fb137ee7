create table notes (
    id uuid primary key default gen_random_uuid(),
    encounter_id uuid not null unique references encounters,
    provider_id uuid not null references users,
    status text not null default 'draft' check (status in ('draft', 'in_review', 'signed')),
    subjective text not null,
    objective text not null,
    assessment text not null,
    plan text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    signed_at timestamptz,
    check ((status = 'signed') = (signed_at is not null))
);
comment on table notes is 'The clinical note of an encounter, in the four parts of a SOAP note.';

create index notes_provider_idx on notes (provider_id, created_at desc);
create trigger notes_updated before update on notes
    for each row execute function set_updated_at();

-- The spoken word of an encounter. The sound lies in object storage; here is where.

create table recordings (
    id uuid primary key default gen_random_uuid(),
    encounter_id uuid not null references encounters on delete cascade,
    storage_key text not null unique,
    duration_s integer not null check (duration_s > 0),
    size_bytes bigint not null check (size_bytes > 0),
    recorded_at timestamptz not null
);
comment on table recordings is 'Sound of an encounter, in object storage.';

create table transcripts (
    id uuid primary key default gen_random_uuid(),
    recording_id uuid not null unique references recordings on delete cascade,
    language text not null default 'en',
    model text not null,
    content text not null,
    word_count integer not null check (word_count >= 0),
    created_at timestamptz not null default now()
);
comment on table transcripts is 'What a speech model heard.';

create index recordings_encounter_idx on recordings (encounter_id);

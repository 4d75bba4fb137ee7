create table icd10_codes (
    code text primary key check (code ~ '^[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?$'),
    title text not null
);
comment on table icd10_codes is 'Diagnoses that a note may name.';

create table note_diagnoses (
    note_id uuid not null references notes on delete cascade,
    code text not null references icd10_codes,
    rank smallint not null check (rank between 1 and 12),
    primary key (note_id, code),
    unique (note_id, rank)
);
comment on table note_diagnoses is 'The diagnoses of a note, the main one first.';

create index note_diagnoses_code_idx on note_diagnoses (code);

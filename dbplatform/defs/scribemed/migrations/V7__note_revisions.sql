-- What a note said before: nothing that was once written in a record is lost.

create table note_revisions (
    note_id uuid not null references notes,
    revision integer not null check (revision > 0),
    author_id uuid not null references users,
    body jsonb not null,
    created_at timestamptz not null default now(),
    primary key (note_id, revision)
);
comment on table note_revisions is 'Earlier texts of a note; filled by a trigger.';

create function keep_note_revision() returns trigger language plpgsql as $$
begin
    insert into note_revisions (note_id, revision, author_id, body)
    select old.id, coalesce(max(r.revision), 0) + 1, old.provider_id,
           jsonb_build_object('subjective', old.subjective, 'objective', old.objective,
                              'assessment', old.assessment, 'plan', old.plan)
    from note_revisions r where r.note_id = old.id;
    return null;
end
$$;

create trigger notes_keep_revision after update of subjective, objective, assessment, plan on notes
    for each row when ((old.subjective, old.objective, old.assessment, old.plan)
                       is distinct from (new.subjective, new.objective, new.assessment, new.plan))
    execute function keep_note_revision();

-- What was said and written belongs to the organization of its encounter, too: earlier texts and diagnoses are their
-- note's, recordings their encounter's, transcripts their recording's; each is there where that is visible.
-- The application says for whom it works within each transaction: set local scribemed.organization_id = '...'. A plain
-- set, as the version before words it, would stay with the session, and a pool gives the session to the next one.

alter table recordings enable row level security;
create policy own_organization on recordings
    using (exists (select from encounters e where e.id = encounter_id));

alter table transcripts enable row level security;
create policy own_organization on transcripts
    using (exists (select from recordings r where r.id = recording_id));

alter table note_revisions enable row level security;
create policy own_organization on note_revisions
    using (exists (select from notes n where n.id = note_id));

alter table note_diagnoses enable row level security;
create policy own_organization on note_diagnoses
    using (exists (select from notes n where n.id = note_id));

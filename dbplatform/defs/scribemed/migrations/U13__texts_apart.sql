drop policy own_organization on note_diagnoses;
alter table note_diagnoses disable row level security;
drop policy own_organization on note_revisions;
alter table note_revisions disable row level security;
drop policy own_organization on transcripts;
alter table transcripts disable row level security;
drop policy own_organization on recordings;
alter table recordings disable row level security;

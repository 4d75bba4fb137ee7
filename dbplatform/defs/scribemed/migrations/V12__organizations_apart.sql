-- An organization sees its own patients, encounters and notes, and can write no row of another. The application says for
-- whom a session works: set scribemed.organization_id = '...'; without it there are no rows. A note is its encounter's.
-- Policies do not bind the owner of the tables and superusers, so that backups and migrations see every row.

alter table patients enable row level security;
create policy own_organization on patients
    using (organization_id = nullif(current_setting('scribemed.organization_id', true), '')::uuid);

alter table encounters enable row level security;
create policy own_organization on encounters
    using (organization_id = nullif(current_setting('scribemed.organization_id', true), '')::uuid);

alter table notes enable row level security;
create policy own_organization on notes
    using (exists (select from encounters e where e.id = encounter_id));

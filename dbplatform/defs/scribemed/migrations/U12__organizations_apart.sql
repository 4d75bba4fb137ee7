drop policy own_organization on notes;
alter table notes disable row level security;
drop policy own_organization on encounters;
alter table encounters disable row level security;
drop policy own_organization on patients;
alter table patients disable row level security;

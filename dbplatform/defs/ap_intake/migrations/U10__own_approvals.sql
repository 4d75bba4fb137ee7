drop policy approve_as_oneself on approvals;
drop policy treasury_sees_all on approvals;
drop policy own_approvals on approvals;
alter table approvals disable row level security;

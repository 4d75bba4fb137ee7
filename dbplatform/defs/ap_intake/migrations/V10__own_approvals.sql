-- Who approves sees and adds approvals of his own, and can change none: there is no policy for UPDATE and DELETE. The
-- application says who works: set ap_intake.user_id = '...'. The treasury sees all of them.

alter table approvals enable row level security;

create policy own_approvals on approvals for select
    using (approver_id = nullif(current_setting('ap_intake.user_id', true), '')::uuid);
create policy treasury_sees_all on approvals for select
    using (current_setting('ap_intake.role', true) = 'treasury');
create policy approve_as_oneself on approvals for insert
    with check (approver_id = nullif(current_setting('ap_intake.user_id', true), '')::uuid);

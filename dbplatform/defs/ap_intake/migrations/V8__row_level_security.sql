-- Bank accounts are for the treasury. The application says for whom a session works: set ap_intake.role = 'treasury'.
-- Policies do not bind the owner of the table and superusers, so that backups and migrations see every row.

alter table vendor_bank_accounts enable row level security;

create policy treasury_only on vendor_bank_accounts
    using (current_setting('ap_intake.role', true) = 'treasury');

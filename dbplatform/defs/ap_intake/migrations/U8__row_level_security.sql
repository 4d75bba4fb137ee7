drop policy treasury_only on vendor_bank_accounts;
alter table vendor_bank_accounts disable row level security;

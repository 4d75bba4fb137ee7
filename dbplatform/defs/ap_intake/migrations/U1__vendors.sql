drop table vendor_bank_accounts;
drop table vendors;

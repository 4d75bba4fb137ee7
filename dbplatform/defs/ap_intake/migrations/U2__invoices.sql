drop trigger vendors_updated on vendors;
drop table invoice_lines;
drop table invoices;
drop table users;
drop function set_updated_at();

drop trigger invoices_audit on invoices;
drop function record_invoice_change();
drop table audit_log;

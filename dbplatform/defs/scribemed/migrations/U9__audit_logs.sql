drop table audit_logs;
drop function refuse_audit_change();

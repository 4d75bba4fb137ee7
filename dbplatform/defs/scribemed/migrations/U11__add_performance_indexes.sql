drop index concurrently if exists idx_patients_active;
drop index concurrently if exists idx_audit_logs_user_date;
drop index concurrently if exists idx_sessions_user_active;
drop index concurrently if exists idx_users_email;

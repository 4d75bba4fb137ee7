-- Built while the application works: each statement runs by itself, outside a transaction.

-- Looking up a user by e-mail at sign-in.
create index concurrently idx_users_email on users (email) where deleted_at is null;

-- The sessions of a user that still count.
create index concurrently idx_sessions_user_active on sessions (user_id) where revoked_at is null;

-- What a user did, newest first.
create index concurrently idx_audit_logs_user_date on audit_logs (user_id, created_at desc);

-- The list of active patients of an organization, by name.
create index concurrently idx_patients_active on patients (organization_id, last_name) where status = 'active';

-- Every attempt to sign in. No foreign key: an attempt may name nobody, and outlives a deleted account.

create table auth_attempts (
    id uuid primary key default gen_random_uuid(),
    user_id uuid,
    email text not null,
    ip_address inet not null,
    user_agent text,
    succeeded boolean not null,
    failure_reason text check (failure_reason in ('unknown_user', 'wrong_password', 'locked', 'unverified')),
    attempted_at timestamptz not null default now(),
    check (succeeded = (failure_reason is null))
);
comment on column auth_attempts.user_id is 'The account, where the e-mail address belonged to one.';
create index idx_auth_attempts_email on auth_attempts (email, attempted_at desc);
create index idx_auth_attempts_ip_address on auth_attempts (ip_address, attempted_at desc);
create index idx_auth_attempts_user_id on auth_attempts (user_id);
create index idx_auth_attempts_failed on auth_attempts (attempted_at) where not succeeded;

-- Free trials and their abuse. From here on the product had migrations of its own beside Prisma's.

create table schema_migrations (
    version text primary key,
    name text not null,
    applied_at timestamptz not null default now()
);
comment on table schema_migrations is 'What the former custom runner had applied; kept as evidence, no longer written.';

create table trial_tokens (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references users on delete cascade,
    token_sha256 text not null unique check (token_sha256 ~ '^[0-9a-f]{64}$'),
    status text not null default 'pending' check (status in ('pending', 'active', 'expired', 'revoked')),
    reports_remaining integer not null default 3 check (reports_remaining >= 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null check (expires_at > created_at)
);
create index idx_trial_tokens_user_id on trial_tokens (user_id);
create index idx_trial_tokens_status on trial_tokens (status);

create table trial_usage (
    id uuid primary key default gen_random_uuid(),
    trial_token_id uuid not null references trial_tokens on delete cascade,
    action text not null check (action in ('activated', 'report_created', 'report_exported')),
    detail jsonb not null default '{}',
    used_at timestamptz not null default now()
);
create index idx_trial_usage_trial_token_id on trial_usage (trial_token_id, used_at);
create index idx_trial_usage_action on trial_usage (action);

create table device_fingerprints (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references users on delete cascade,
    fingerprint text not null,
    ip_address inet not null,
    is_blocked boolean not null default false,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    unique (user_id, fingerprint)
);
create index idx_device_fingerprints_fingerprint on device_fingerprints (fingerprint);
create index idx_device_fingerprints_user_id on device_fingerprints (user_id);
create index idx_device_fingerprints_ip_address on device_fingerprints (ip_address);
create index idx_device_fingerprints_blocked on device_fingerprints (fingerprint) where is_blocked;

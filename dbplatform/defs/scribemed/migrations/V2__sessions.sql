create table sessions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references users on delete cascade,
    token_sha256 text not null unique check (token_sha256 ~ '^[0-9a-f]{64}$'),
    ip_address inet,
    user_agent text,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    check (expires_at > created_at)
);
comment on table sessions is 'Signed-in devices. Only the hash of a token is stored.';

-- What Prisma had made before this project took over: people, organizations, sessions, and Prisma's own record.

create table _prisma_migrations (
    id varchar(36) primary key,
    checksum varchar(64) not null,
    finished_at timestamptz,
    migration_name varchar(255) not null,
    logs text,
    rolled_back_at timestamptz,
    started_at timestamptz not null default now(),
    applied_steps_count integer not null default 0
);
comment on table _prisma_migrations is 'What Prisma had applied; kept as evidence, no longer written.';

create table users (
    id uuid primary key default gen_random_uuid(),
    email text not null unique,
    password_hash text not null check (password_hash ~ '^\$2[aby]\$[0-9]{2}\$.{53}$'),
    full_name text not null,
    role text not null default 'technician' check (role in ('owner', 'admin', 'technician', 'viewer')),
    email_verified_at timestamptz,
    last_login_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on column users.password_hash is 'bcrypt.';
create unique index idx_users_email_lower on users (lower(email));
create index idx_users_created_at on users (created_at);
create index idx_users_role on users (role);
create index idx_users_last_login_at on users (last_login_at);

create table organizations (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    slug text not null unique check (slug ~ '^[a-z0-9-]+$'),
    owner_id uuid not null references users,
    abn text check (abn ~ '^[0-9]{11}$'),
    settings jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table organizations is 'Restoration companies.';
comment on column organizations.abn is 'Australian Business Number.';
create index idx_organizations_owner_id on organizations (owner_id);
create index idx_organizations_created_at on organizations (created_at);

create table organization_members (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    user_id uuid not null references users on delete cascade,
    role text not null check (role in ('owner', 'admin', 'technician', 'viewer')),
    joined_at timestamptz not null default now(),
    unique (organization_id, user_id)
);
create index idx_organization_members_user_id on organization_members (user_id);
create index idx_organization_members_role on organization_members (organization_id, role);

create table organization_invitations (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations on delete cascade,
    invited_by uuid not null references users,
    email text not null,
    role text not null check (role in ('admin', 'technician', 'viewer')),
    token_sha256 text not null unique check (token_sha256 ~ '^[0-9a-f]{64}$'),
    expires_at timestamptz not null,
    accepted_at timestamptz,
    created_at timestamptz not null default now()
);
create index idx_organization_invitations_organization_id on organization_invitations (organization_id);
create index idx_organization_invitations_invited_by on organization_invitations (invited_by);
create index idx_organization_invitations_email on organization_invitations (email);
create index idx_organization_invitations_open on organization_invitations (expires_at) where accepted_at is null;

create table sessions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references users on delete cascade,
    token_sha256 text not null unique check (token_sha256 ~ '^[0-9a-f]{64}$'),
    ip_address inet,
    user_agent text,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null check (expires_at > created_at),
    revoked_at timestamptz
);
comment on table sessions is 'Signed-in devices. Only the hash of a token is stored.';
create index idx_sessions_user_id on sessions (user_id);
create index idx_sessions_expires_at on sessions (expires_at);
create index idx_sessions_user_open on sessions (user_id, expires_at) where revoked_at is null;

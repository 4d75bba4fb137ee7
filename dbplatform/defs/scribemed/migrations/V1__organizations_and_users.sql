-- Who works with ScribeMed: practices and their people.

create function set_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create table organizations (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    status text not null default 'active' check (status in ('active', 'suspended', 'closed')),
    time_zone text not null default 'UTC',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table organizations is 'Practices and clinics; everything of a patient belongs to one of them.';

create table users (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations,
    email text not null,
    first_name text not null,
    last_name text not null,
    role text not null check (role in ('provider', 'nurse', 'scribe', 'admin')),
    npi text check (npi ~ '^[0-9]{10}$'),
    password_hash text not null check (password_hash ~ '^\$2[aby]\$[0-9]{2}\$.{53}$'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    unique (organization_id, email),
    check (role <> 'provider' or npi is not null)
);
comment on table users is 'People who sign in. A deleted one keeps its row, because notes and the audit log name it.';
comment on column users.npi is 'National Provider Identifier; every provider has one.';
comment on column users.password_hash is 'bcrypt.';

create trigger organizations_updated before update on organizations
    for each row execute function set_updated_at();
create trigger users_updated before update on users
    for each row execute function set_updated_at();

-- An organization sees itself, its own users, their sessions and what they did, and can write no row of another. What the
-- system itself did (no user) may be added by every organization, and is seen by the owner of the tables alone.
-- Who signs in, or comes with a token, is of no organization yet: two functions tell of exactly one address, or one token.
-- Grant EXECUTE on them to the role of the application, which then says for whom it works:
-- set local scribemed.organization_id = '...'.

alter table organizations enable row level security;
create policy own_organization on organizations
    using (id = nullif(current_setting('scribemed.organization_id', true), '')::uuid);

alter table users enable row level security;
create policy own_organization on users
    using (organization_id = nullif(current_setting('scribemed.organization_id', true), '')::uuid);

alter table sessions enable row level security;
create policy own_organization on sessions
    using (exists (select from users u where u.id = user_id));

alter table audit_logs enable row level security;
create policy own_organization on audit_logs
    using (exists (select from users u where u.id = user_id))
    with check (user_id is null or exists (select from users u where u.id = user_id));

create function user_at_sign_in(address text) returns table (user_id uuid, organization_id uuid, password_hash text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select u.id, u.organization_id, u.password_hash from public.users u
    where u.email = address and u.deleted_at is null
$$;
comment on function user_at_sign_in(text) is 'Who signs in by this address; the application compares the password.';

create function user_of_session(token text) returns table (user_id uuid, organization_id uuid)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select u.id, u.organization_id from public.sessions s join public.users u on u.id = s.user_id
    where s.token_sha256 = token and s.revoked_at is null and s.expires_at > now() and u.deleted_at is null
$$;
comment on function user_of_session(text) is 'Whose session has a token of this SHA-256, while it counts.';

revoke execute on function user_at_sign_in(text), user_of_session(text) from public;

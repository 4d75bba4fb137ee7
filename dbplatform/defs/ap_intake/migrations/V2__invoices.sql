create table users (
    id uuid primary key default gen_random_uuid(),
    email text not null unique,
    full_name text not null,
    role text not null check (role in ('clerk', 'approver', 'treasury', 'admin')),
    password_hash text not null check (password_hash ~ '^\$2[aby]\$[0-9]{2}\$.{53}$'),
    is_active boolean not null default true,
    created_at timestamptz not null default now()
);
comment on column users.password_hash is 'bcrypt.';

create table invoices (
    id uuid primary key default gen_random_uuid(),
    vendor_id uuid references vendors,
    file_name text not null,
    file_hash text not null check (file_hash ~ '^[0-9a-f]{64}$'),
    file_bytes integer not null check (file_bytes > 0),
    workflow_state text not null default 'received'
        check (workflow_state in ('received', 'parsed', 'validated', 'exception', 'staged', 'exported')),
    status text not null default 'pending' check (status in ('pending', 'approved', 'rejected', 'paid')),
    invoice_number text,
    invoice_date date,
    due_date date,
    currency text check (currency ~ '^[A-Z]{3}$'),
    net_amount numeric(14, 2),
    tax_amount numeric(14, 2),
    total_amount numeric(14, 2),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table invoices is 'Documents that came in, from the file to the export. What could not be read is null.';
comment on column invoices.file_hash is
    'SHA-256 of the file. Not unique: a second arrival is kept, and becomes an exception.';

create table invoice_lines (
    id uuid primary key default gen_random_uuid(),
    invoice_id uuid not null references invoices on delete cascade,
    position integer not null check (position > 0),
    description text not null,
    quantity numeric(12, 3) not null,
    unit_price numeric(14, 4) not null,
    amount numeric(14, 2) not null,
    unique (invoice_id, position)
);

create function set_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;
create trigger vendors_updated before update on vendors
    for each row execute function set_updated_at();
create trigger invoices_updated before update on invoices
    for each row execute function set_updated_at();

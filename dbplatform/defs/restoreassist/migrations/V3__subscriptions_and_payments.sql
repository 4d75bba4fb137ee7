create table subscription_plans (
    id uuid primary key default gen_random_uuid(),
    code text not null unique,
    name text not null,
    monthly_price numeric(10, 2) not null check (monthly_price >= 0),
    reports_per_month integer check (reports_per_month > 0),
    is_active boolean not null default true
);
comment on column subscription_plans.reports_per_month is 'Null: as many as they like.';
create index idx_subscription_plans_active on subscription_plans (monthly_price) where is_active;

create table subscriptions (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references organizations,
    plan_id uuid not null references subscription_plans,
    stripe_subscription_id text not null unique,
    status text not null check (status in ('trialing', 'active', 'past_due', 'cancelled')),
    current_period_start timestamptz not null,
    current_period_end timestamptz not null check (current_period_end > current_period_start),
    cancelled_at timestamptz,
    created_at timestamptz not null default now(),
    check ((status = 'cancelled') = (cancelled_at is not null))
);
create index idx_subscriptions_organization_id on subscriptions (organization_id);
create index idx_subscriptions_plan_id on subscriptions (plan_id);
create index idx_subscriptions_status on subscriptions (status);
create index idx_subscriptions_renewal on subscriptions (status, current_period_end);
create unique index idx_subscriptions_one_running on subscriptions (organization_id) where status <> 'cancelled';

create table subscription_history (
    id uuid primary key default gen_random_uuid(),
    subscription_id uuid not null references subscriptions on delete cascade,
    event text not null check (event in ('created', 'renewed', 'upgraded', 'downgraded', 'past_due', 'cancelled')),
    detail jsonb not null default '{}',
    created_at timestamptz not null default now()
);
create index idx_subscription_history_subscription_id on subscription_history (subscription_id, created_at desc);
create index idx_subscription_history_event on subscription_history (event);

create table payments (
    id uuid primary key default gen_random_uuid(),
    subscription_id uuid not null references subscriptions,
    stripe_payment_intent_id text not null unique,
    amount numeric(10, 2) not null check (amount > 0),
    currency text not null default 'AUD' check (currency ~ '^[A-Z]{3}$'),
    status text not null check (status in ('succeeded', 'failed', 'refunded')),
    created_at timestamptz not null default now()
);
create index idx_payments_subscription_id on payments (subscription_id, created_at desc);
create index idx_payments_status on payments (status);
create index idx_payments_created_at on payments (created_at);

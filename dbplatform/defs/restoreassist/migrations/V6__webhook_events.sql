-- What the payment provider tells, each event once.

create table webhook_events (
    id uuid primary key default gen_random_uuid(),
    stripe_event_id text not null unique,
    type text not null,
    payload jsonb not null,
    received_at timestamptz not null default now(),
    processed_at timestamptz
);
create index idx_webhook_events_type on webhook_events (type);
create index idx_webhook_events_unprocessed on webhook_events (received_at) where processed_at is null;

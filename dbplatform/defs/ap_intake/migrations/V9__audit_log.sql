-- Who changed the state of an invoice, and when. It grows for ever, so it is partitioned by month;
-- the partitions are made ahead from the declaration (partitioned_tables).

create table audit_log (
    id uuid not null default gen_random_uuid(),
    occurred_at timestamptz not null default now(),
    actor text not null default current_user,
    entity text not null,
    entity_id uuid not null,
    action text not null check (action in ('received', 'state_changed', 'status_changed', 'approved', 'exported')),
    detail jsonb not null default '{}',
    primary key (occurred_at, id)
) partition by range (occurred_at);
comment on table audit_log is 'Every change of state of an invoice; rows are only ever added.';
create index audit_log_entity_idx on audit_log (entity_id, occurred_at);

create function record_invoice_change() returns trigger language plpgsql as $$
begin
    insert into audit_log (entity, entity_id, action, detail)
    values ('invoice', new.id,
            case when new.status is distinct from old.status then 'status_changed' else 'state_changed' end,
            jsonb_build_object('from', jsonb_build_array(old.workflow_state, old.status),
                               'to', jsonb_build_array(new.workflow_state, new.status)));
    return null;
end
$$;

create trigger invoices_audit after update of workflow_state, status on invoices
    for each row when ((old.workflow_state, old.status) is distinct from (new.workflow_state, new.status))
    execute function record_invoice_change();

-- silences, drills, reviews and advice are announced, too. A silence of every database names none: "alerts ".
create or replace function ledger.announce() returns trigger language plpgsql as $$
declare
    changed text;
begin
    for changed in select distinct coalesce(database, '') from new_rows loop
        perform pg_notify('dbplatform_ledger', tg_argv[0] || ' ' || changed);
    end loop;
    return null;
end
$$;
create function ledger.announce_review() returns trigger language plpgsql as $$
declare
    changed text;
begin
    for changed in select distinct r.database from new_rows n join ledger.quality_run r on r.run_id = n.run_id loop
        perform pg_notify('dbplatform_ledger', 'quality ' || changed);
    end loop;
    return null;
end
$$;

create trigger announced_insert after insert on ledger.silence referencing new table as new_rows
    for each statement execute function ledger.announce('alerts');
create trigger announced_update after update on ledger.silence referencing new table as new_rows
    for each statement execute function ledger.announce('alerts');
create trigger announced_insert after insert on ledger.drill referencing new table as new_rows
    for each statement execute function ledger.announce('backups');
create trigger announced_update after update on ledger.drill referencing new table as new_rows
    for each statement execute function ledger.announce('backups');
create trigger announced_insert after insert on ledger.advice referencing new table as new_rows
    for each statement execute function ledger.announce('advice');
create trigger announced_update after update on ledger.advice referencing new table as new_rows
    for each statement execute function ledger.announce('advice');
create trigger announced_insert after insert on ledger.report_review referencing new table as new_rows
    for each statement execute function ledger.announce_review();

-- Whether Dagster knows a run of checks; until now only where something else was done in the same run.
alter table ledger.quality_run add column in_dagster boolean not null default false;
comment on column ledger.quality_run.in_dagster is 'its id is that of a Dagster run; else it was made by the command line';
update ledger.quality_run r set in_dagster = true
where exists (select from ledger.operation o where o.run_id = r.run_id and o.actor = 'dagster');

alter table ledger.period_report add column run_id text;
comment on column ledger.period_report.run_id is 'the Dagster run that wrote it last';

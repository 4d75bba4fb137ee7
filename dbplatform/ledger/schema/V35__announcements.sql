-- What changes in the ledger is announced, so that nobody has to ask for it again and again: "<what> <database>" on the
-- channel dbplatform_ledger, once for each transaction. Reports and checks of one run are told with its end.
create function ledger.announce() returns trigger language plpgsql as $$
declare
    changed text;
begin
    for changed in select distinct database from new_rows loop
        perform pg_notify('dbplatform_ledger', tg_argv[0] || ' ' || changed);
    end loop;
    return null;
end
$$;

create trigger announced_insert after insert on ledger.operation referencing new table as new_rows
    for each statement execute function ledger.announce('runs');
create trigger announced_update after update on ledger.operation referencing new table as new_rows
    for each statement execute function ledger.announce('runs');
create trigger announced_insert after insert on ledger.quality_run referencing new table as new_rows
    for each statement execute function ledger.announce('quality');
create trigger announced_update after update on ledger.quality_run referencing new table as new_rows
    for each statement execute function ledger.announce('quality');
create trigger announced_insert after insert on ledger.metric_collection referencing new table as new_rows
    for each statement execute function ledger.announce('metrics');
create trigger announced_insert after insert on ledger.alert referencing new table as new_rows
    for each statement execute function ledger.announce('alerts');
create trigger announced_update after update on ledger.alert referencing new table as new_rows
    for each statement execute function ledger.announce('alerts');
create trigger announced_insert after insert on ledger.backup referencing new table as new_rows
    for each statement execute function ledger.announce('backups');
create trigger announced_update after update on ledger.backup referencing new table as new_rows
    for each statement execute function ledger.announce('backups');

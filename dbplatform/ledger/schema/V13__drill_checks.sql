-- What the data-quality checks said of the copy that a drill restored, and what follows for the backup.
alter table ledger.drill
    add column checks jsonb not null default '[]';

-- what a backup holds, and when its last file was removed: whoever clears up asks no storage for it again.
alter table ledger.backup
    add column scope text not null default 'everything',
    add column removed_at timestamptz;

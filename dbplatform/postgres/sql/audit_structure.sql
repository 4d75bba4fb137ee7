-- Purpose: the tables, indexes and foreign keys of a database, and what is wrong with them. One row of four lists:
--          tables, indexes, foreign_keys; findings: rule, object, evidence, mend.
-- Parameters: %(history)s: the migrations' history table, or null; %(leave_out)s: the platform's own schema.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "System Catalogs"; https://wiki.postgresql.org/wiki/Don%%27t_Do_This.
--         Members of extensions and the history table are left out. A partition counts with its table, as its indexes
--         and foreign keys do.
with tables as materialized (
    select c.oid, c.relkind, greatest(c.reltuples, 0)::bigint as rows, c.relrowsecurity, n.nspname, c.relname,
           format('%%I.%%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', %(leave_out)s)
      and c.oid is distinct from to_regclass(%(history)s)
      and not exists (select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
), columns as materialized (
    select t.oid as table_id, t.name as table_name, a.attnum, a.attname, a.attnotnull, a.atttypid,
           format_type(a.atttypid, a.atttypmod) as type, format('%%s.%%I', t.name, a.attname) as name
    from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
), indexes as materialized (
    select i.indexrelid, i.indrelid, i.indisunique, i.indisprimary, i.indisvalid, i.indisreplident, i.indpred, i.indnkeyatts,
           i.indkey::int2[] as keys, t.name as table_name, t.relkind, am.amname, format('%%I.%%I', n.nspname, c.relname) as name,
           c.relname, k.oid is not null as of_constraint, pg_get_indexdef(i.indexrelid) as definition,
           row(i.indrelid, c.relam, i.indnkeyatts, i.indkey::text, i.indclass::text, i.indcollation::text, i.indoption::text,
               pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid))::text as same
    from tables t
    join pg_index i on i.indrelid = t.oid
    join pg_class c on c.oid = i.indexrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_am am on am.oid = c.relam
    left join pg_constraint k on k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')
), foreign_keys as materialized (
    select k.oid, k.conname, k.conrelid, k.conkey, k.confrelid, k.confkey, k.convalidated, t.name as table_name, t.relkind, t.rows,
           t.relname, format('%%I.%%I', rn.nspname, rc.relname) as refers_to, pg_get_constraintdef(k.oid) as definition,
           (select string_agg(format('%%I', a.attname), ', ' order by u.place)
            from unnest(k.conkey) with ordinality u(attnum, place)
            join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum) as column_names,
           -- Its columns, in any order, lead a whole index, or one that leaves out nothing but nulls.
           exists (select from indexes i
                   where i.indrelid = k.conrelid and i.indisvalid and i.amname <> 'brin' and i.indnkeyatts >= cardinality(k.conkey)
                     and i.keys[0:cardinality(k.conkey) - 1] @> k.conkey and k.conkey @> i.keys[0:cardinality(k.conkey) - 1]
                     and (i.indpred is null
                          or (select bool_and(pg_get_expr(i.indpred, i.indrelid) = format('(%%I IS NOT NULL)', a.attname))
                              from pg_attribute a where a.attrelid = k.conrelid and a.attnum = any (k.conkey)))) as indexed
    from tables t
    join pg_constraint k on k.conrelid = t.oid and k.contype = 'f' and k.conparentid = 0
    join pg_class rc on rc.oid = k.confrelid
    join pg_namespace rn on rn.oid = rc.relnamespace
), same as (
    -- Of equal indexes the one that is needed most stays: it backs a constraint, is unique, is the replica identity.
    select *, first_value(name) over best as kept, row_number() over best as place
    from indexes where indisvalid
    window best as (partition by same order by of_constraint desc, indisunique desc, indisreplident desc, indexrelid)
), off as (
    select g.tgrelid, t.name as table_name, g.tgname, g.tgisinternal, g.tgenabled, k.conname, k.conrelid
    from tables t
    join pg_trigger g on g.tgrelid = t.oid and g.tgenabled in ('D', 'R')
    left join pg_constraint k on k.oid = g.tgconstraint and k.contype = 'f'
), findings(rule, object, evidence, mend) as (
    select 'no_primary_key', t.name,
           format('a table of about %%s rows', t.rows)
           || coalesce('; its unique index ' || u.relname || ' on columns that are never null can become the key', ''),
           case when u.relname is not null then format('ALTER TABLE %%s ADD PRIMARY KEY USING INDEX %%I;', t.name, u.relname) end
    from tables t
    left join lateral (
        select i.relname from indexes i
        where i.indrelid = t.oid and t.relkind = 'r' and i.indisunique and i.indisvalid and i.indpred is null
          and i.amname = 'btree' and not i.of_constraint
          and (select bool_and(coalesce(c.attnotnull, false))
               from unnest(i.keys[0:i.indnkeyatts - 1]) k left join columns c on c.table_id = t.oid and c.attnum = k)
        order by i.indnkeyatts, i.relname limit 1) u on true
    where not exists (select from indexes i where i.indrelid = t.oid and i.indisprimary)
    union all
    select 'foreign_key_without_index', format('%%s %%I', f.table_name, f.conname),
           format('%%s has no index on (%%s): a deleted or changed row of %%s reads all of its %%s rows',
                  f.table_name, f.column_names, f.refers_to, f.rows),
           case f.relkind when 'r' then format('CREATE INDEX CONCURRENTLY ON %%s (%%s);', f.table_name, f.column_names)
                          else format('CREATE INDEX ON ONLY %%s (%%s); -- then one per partition CONCURRENTLY, each ATTACHed',
                                      f.table_name, f.column_names) end
    from foreign_keys f where not f.indexed
    union all
    select 'type_differs_from_referenced', c.name,
           format('it is %%s, and %%s, which it refers to, is %%s', c.type, format('%%s.%%I', f.refers_to, r.attname),
                  format_type(r.atttypid, r.atttypmod)),
           format('ALTER TABLE %%s ALTER COLUMN %%I TYPE %%s; -- rewrites the table under ACCESS EXCLUSIVE', c.table_name,
                  c.attname, format_type(r.atttypid, r.atttypmod))
    from foreign_keys f, unnest(f.conkey, f.confkey) p(own, other)
    join pg_attribute r on true
    join columns c on true
    where c.table_id = f.conrelid and c.attnum = p.own and r.attrelid = f.confrelid and r.attnum = p.other
      and c.type <> format_type(r.atttypid, r.atttypmod)
    union all
    select case c.atttypid when 'timestamp'::regtype then 'timestamp_without_time_zone' when 'money'::regtype then 'money'
                           when 'bpchar'::regtype then 'padded_text' when 'timetz'::regtype then 'time_with_time_zone' end,
           c.name, 'it is ' || c.type,
           case c.atttypid
               when 'timestamp'::regtype then format(
                   'ALTER TABLE %%s ALTER COLUMN %%I TYPE timestamptz USING %%I AT TIME ZONE ''UTC''; -- if it holds UTC; rewrites',
                   c.table_name, c.attname, c.attname)
               when 'money'::regtype then format('ALTER TABLE %%s ALTER COLUMN %%I TYPE numeric; -- rewrites', c.table_name, c.attname)
               when 'bpchar'::regtype then format('ALTER TABLE %%s ALTER COLUMN %%I TYPE text; -- rewrites', c.table_name, c.attname)
           end
    from columns c where c.atttypid in ('timestamp'::regtype, 'money'::regtype, 'bpchar'::regtype, 'timetz'::regtype)
    union all
    select 'constraint_not_validated', format('%%s %%I', t.name, k.conname),
           'rows from before it may break it: ' || pg_get_constraintdef(k.oid),
           format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I;', t.name, k.conname)
    from tables t join pg_constraint k on k.conrelid = t.oid
    where not k.convalidated and k.conparentid = 0 and coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
    union all
    select 'constraint_not_enforced', format('%%s %%I', t.name, k.conname),
           'it is NOT ENFORCED: ' || pg_get_constraintdef(k.oid),
           case k.contype when 'f' then format('ALTER TABLE %%s ALTER CONSTRAINT %%I ENFORCED;', t.name, k.conname) end
    from tables t join pg_constraint k on k.conrelid = t.oid
    where k.conparentid = 0 and to_jsonb(k) ->> 'conenforced' = 'false'
    union all
    select distinct 'constraint_not_enforced', format('%%s %%I', r.name, o.conname),
           format('triggers of this foreign key on %%s are disabled: rows that break it come in unseen', o.table_name),
           format('ALTER TABLE %%s ENABLE TRIGGER ALL; -- then look for rows that break it', o.table_name)
    from off o join tables r on r.oid = o.conrelid where o.tgisinternal
    union all
    select 'trigger_disabled', format('%%s %%I', o.table_name, o.tgname),
           case o.tgenabled when 'D' then 'it is disabled' else 'it fires on replicas alone' end,
           format('ALTER TABLE %%s ENABLE TRIGGER %%I;', o.table_name, o.tgname)
    from off o where not o.tgisinternal
    union all
    select 'duplicate_index', name, format('it is the same as %%s', kept),
           case when not of_constraint and not indisreplident
                then format(case relkind when 'r' then 'DROP INDEX CONCURRENTLY %%s;' else 'DROP INDEX %%s;' end, name) end
    from same where place > 1
    union all
    select 'invalid_index', i.name, format('no query uses it, every write keeps it: %%s', i.definition),
           case i.relkind when 'r' then format('REINDEX INDEX CONCURRENTLY %%s;', i.name) end
    from indexes i
    where not i.indisvalid and not exists (select from pg_stat_progress_create_index p
                                           where p.datname = current_database() and p.relid = i.indrelid)
)
select (select coalesce(jsonb_agg(jsonb_build_object(
            'table', t.name, 'rows', t.rows, 'partitions', (
                select count(*) - 1 from pg_partition_tree(t.oid)) + (t.relkind = 'r')::int,
            'partitioned', t.relkind = 'p', 'row_level_security', t.relrowsecurity,
            'columns', (select jsonb_object_agg(c.attname, c.type order by c.attnum) from columns c where c.table_id = t.oid),
            'primary_key', (select jsonb_agg(c.attname order by array_position(i.keys, c.attnum))
                            from indexes i join columns c on c.table_id = t.oid and c.attnum = any (i.keys[0:i.indnkeyatts - 1])
                            where i.indrelid = t.oid and i.indisprimary),
            'indexes', (select count(*) from indexes i where i.indrelid = t.oid),
            'foreign_keys', (select count(*) from foreign_keys f where f.conrelid = t.oid)) order by t.name), '[]')
        from tables t) as tables,
       (select coalesce(jsonb_agg(jsonb_build_object(
            'index', i.name, 'table', i.table_name, 'method', i.amname, 'unique', i.indisunique, 'primary', i.indisprimary,
            'valid', i.indisvalid, 'definition', i.definition) order by i.table_name, i.name), '[]') from indexes i) as indexes,
       (select coalesce(jsonb_agg(jsonb_build_object(
            'name', f.conname, 'table', f.table_name, 'columns', f.column_names, 'refers_to', f.refers_to,
            'validated', f.convalidated, 'indexed', f.indexed, 'definition', f.definition) order by f.table_name, f.conname), '[]')
        from foreign_keys f) as foreign_keys,
       (select coalesce(jsonb_agg(to_jsonb(x) order by x.rule, x.object), '[]') from findings x) as findings

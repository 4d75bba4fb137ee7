-- Purpose: the tables, indexes and foreign keys of a database, and what is wrong with them. One row of four lists:
--          tables, indexes, foreign_keys; findings: rule, object, evidence, mend.
-- Parameters: %(history)s: the migrations' history table, or null; %(leave_out)s: the platform's own schema;
--             %(large)s: a table of so many rows is a large one.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "System Catalogs"; https://wiki.postgresql.org/wiki/Don%%27t_Do_This.
--         Members of extensions and the history table are left out. A partition counts with its table, as its indexes
--         and foreign keys do.
with tables as materialized (
    select c.oid, c.relkind,
           -- ANALYZE of a partition says nothing of its table.
           case c.relkind when 'r' then greatest(c.reltuples, 0)::bigint
                          else (select coalesce(sum(greatest(l.reltuples, 0)), 0)::bigint
                                from pg_partition_tree(c.oid) p join pg_class l on l.oid = p.relid where p.isleaf) end as rows,
           c.relrowsecurity, n.nspname, c.relname,
           format('%%I.%%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', %(leave_out)s)
      and c.oid is distinct from to_regclass(%(history)s)
      and not exists (select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
), indexes as materialized (
    select i.indexrelid, i.indrelid, i.indisunique, i.indisprimary, i.indisvalid, i.indisreplident,
           t.name as table_name, t.relkind, am.amname, c.relname,
           format('%%I.%%I', n.nspname, c.relname) as name, pg_get_indexdef(i.indexrelid) as definition,
           exists (select from pg_constraint k where k.conindid = i.indexrelid) as of_constraint,
           row(i.indrelid, c.relam, to_jsonb(i) ->> 'indnullsnotdistinct', i.indnkeyatts, i.indkey::text, i.indclass::text,
               i.indcollation::text, i.indoption::text, pg_get_expr(i.indexprs, i.indrelid),
               pg_get_expr(i.indpred, i.indrelid))::text as same
    from tables t
    join pg_index i on i.indrelid = t.oid
    join pg_class c on c.oid = i.indexrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_am am on am.oid = c.relam
), foreign_keys as materialized (
    select k.oid, k.conname, k.conrelid, k.conkey, k.confrelid, k.confkey, k.convalidated, t.name as table_name, t.relkind, t.rows,
           t.relname, format('%%I.%%I', rn.nspname, rc.relname) as refers_to, pg_get_constraintdef(k.oid) as definition,
           (select string_agg(format('%%I', a.attname), ', ' order by u.place)
            from unnest(k.conkey) with ordinality u(attnum, place)
            join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum) as column_names,
           -- Its columns, in any order, lead a whole index, or one that leaves out nothing but nulls.
           exists (select from pg_index i, lateral (select (i.indkey::int2[])[0:cardinality(k.conkey) - 1] as keys) l
                   where i.indrelid = k.conrelid and i.indisvalid and i.indnkeyatts >= cardinality(k.conkey)
                     and l.keys @> k.conkey and k.conkey @> l.keys
                     and (select amname from pg_class c join pg_am am on am.oid = c.relam where c.oid = i.indexrelid) <> 'brin'
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
        select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = t.oid and t.relkind = 'r' and i.indisunique and i.indisvalid and i.indpred is null
          and not exists (select from pg_constraint k where k.conindid = i.indexrelid)
          and (select bool_and(coalesce(a.attnotnull, false))
               from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
               left join pg_attribute a on a.attrelid = t.oid and a.attnum = k and k > 0)
        order by i.indnkeyatts, c.relname limit 1) u on true
    where not exists (select from pg_index i where i.indrelid = t.oid and i.indisprimary)
    union all
    select case when f.rows >= %(large)s then 'foreign_key_without_index' else 'small_foreign_key_without_index' end, format('%%s %%I', f.table_name, f.conname),
           format('%%s has no index on (%%s): a deleted or changed row of %%s reads all of its %%s rows',
                  f.table_name, f.column_names, f.refers_to, f.rows),
           case f.relkind when 'r' then format('CREATE INDEX CONCURRENTLY ON %%s (%%s);', f.table_name, f.column_names)
                          else format('CREATE INDEX ON ONLY %%s (%%s); -- then one per partition CONCURRENTLY, each ATTACHed',
                                      f.table_name, f.column_names) end
    from foreign_keys f where not f.indexed
    union all
    select distinct 'type_differs_from_referenced', format('%%s.%%I', f.table_name, a.attname),
           format('it is %%s, and %%s.%%I, which it refers to, is %%s', format_type(a.atttypid, a.atttypmod), f.refers_to,
                  r.attname, format_type(r.atttypid, r.atttypmod)),
           format('ALTER TABLE %%s ALTER COLUMN %%I TYPE %%s; -- rewrites the table under ACCESS EXCLUSIVE', f.table_name,
                  a.attname, format_type(r.atttypid, r.atttypmod))
    from foreign_keys f
    cross join lateral unnest(f.conkey, f.confkey) p(own, other)
    join pg_attribute a on a.attrelid = f.conrelid and a.attnum = p.own
    join pg_attribute r on r.attrelid = f.confrelid and r.attnum = p.other
    where (a.atttypid, a.atttypmod) <> (r.atttypid, r.atttypmod)
    union all
    select u.rule, format('%%s.%%I', t.name, a.attname), 'it is ' || format_type(a.atttypid, a.atttypmod),
           case when u.instead is not null then format('ALTER TABLE %%s ALTER COLUMN %%I TYPE ', t.name, a.attname) || u.instead end
           || case u.instead when 'timestamptz' then format(' USING %%I AT TIME ZONE ''UTC''; -- if it holds UTC; rewrites', a.attname)
                             else '; -- rewrites' end
    from tables t
    join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    join (values ('timestamp'::regtype, 'timestamp_without_time_zone', 'timestamptz'), ('money', 'money', 'numeric'),
                 ('bpchar', 'padded_text', 'text'), ('timetz', 'time_with_time_zone', null)) u(type, rule, instead)
         on u.type = a.atttypid
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
select (select coalesce(json_agg(json_build_object(
            'table', t.name, 'rows', t.rows, 'partitioned', t.relkind = 'p',
            'partitions', case t.relkind when 'p' then (select count(*) - 1 from pg_partition_tree(t.oid)) else 0 end,
            'row_level_security', t.relrowsecurity,
            'columns', (select coalesce(json_object_agg(a.attname, format_type(a.atttypid, a.atttypmod) order by a.attnum), '{}')
                        from pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped),
            'primary_key', (select json_agg(a.attname order by array_position(i.indkey::int2[], a.attnum))
                            from pg_index i
                            join pg_attribute a on a.attrelid = t.oid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                            where i.indrelid = t.oid and i.indisprimary),
            'indexes', (select count(*) from pg_index i where i.indrelid = t.oid),
            'foreign_keys', (select count(*) from pg_constraint k
                             where k.conrelid = t.oid and k.contype = 'f' and k.conparentid = 0)) order by t.name), '[]')
        from tables t) as tables,
       (select coalesce(json_agg(json_build_object(
            'index', i.name, 'table', i.table_name, 'method', i.amname, 'unique', i.indisunique, 'primary', i.indisprimary,
            'valid', i.indisvalid, 'definition', i.definition) order by i.table_name, i.name), '[]') from indexes i) as indexes,
       (select coalesce(json_agg(json_build_object(
            'name', f.conname, 'table', f.table_name, 'columns', f.column_names, 'refers_to', f.refers_to,
            'validated', f.convalidated, 'indexed', f.indexed, 'definition', f.definition) order by f.table_name, f.conname), '[]')
        from foreign_keys f) as foreign_keys,
       (select coalesce(json_agg(to_json(x) order by x.rule, x.object), '[]') from findings x) as findings

-- A shop that rents DVDs, after the sample databases Sakila, dvdrental and Pagila: an enum, domains, a trigger for each
-- table, full-text search, an aggregate of its own, views, a materialized view, and payments partitioned by month.

create type mpaa_rating as enum ('G', 'PG', 'PG-13', 'R', 'NC-17');
create domain year as integer constraint year_check check (value >= 1901 and value <= 2155);
create domain "bıgınt" as bigint;

create function _group_concat(text, text) returns text language sql immutable as
$$ select case when $2 is null then $1 when $1 is null then $2 else $1 || ', ' || $2 end $$;
create aggregate group_concat(text) (sfunc = _group_concat, stype = text);

create function last_day(timestamptz) returns date language sql immutable strict as
$_$ select case when extract(month from $1 at time zone 'UTC') = 12
           then ((extract(year from $1 at time zone 'UTC') + 1) || '-01-01')::date - 1
           else (extract(year from $1 at time zone 'UTC') || '-' || (extract(month from $1 at time zone 'UTC') + 1)
                 || '-01')::date - 1 end $_$;

create function last_updated() returns trigger language plpgsql as $$
begin
    new.last_update = current_timestamp;
    return new;
end $$;

create table language (
    language_id serial primary key, name character(20) not null, last_update timestamptz not null default now()
);
create table category (
    category_id serial primary key, name text not null, last_update timestamptz not null default now()
);
create table actor (
    actor_id serial primary key, first_name text not null, last_name text not null,
    last_update timestamptz not null default now()
);
create index idx_actor_last_name on actor (last_name);

create table film (
    film_id serial primary key, title text not null, description text, release_year year,
    language_id integer not null references language on update cascade on delete restrict,
    original_language_id integer references language on update cascade on delete restrict,
    rental_duration smallint not null default 3, rental_rate numeric(4, 2) not null default 4.99, length smallint,
    replacement_cost numeric(5, 2) not null default 19.99, rating mpaa_rating default 'G',
    last_update timestamptz not null default now(), special_features text[], fulltext tsvector not null,
    check (rental_rate >= 0 and rental_rate <= 99)
);
create index film_fulltext_idx on film using gist (fulltext);
create index idx_title on film (title);
create index idx_fk_language_id on film (language_id);
create trigger film_fulltext_trigger before insert or update on film for each row
    execute function tsvector_update_trigger('fulltext', 'pg_catalog.english', 'title', 'description');

create table film_actor (
    actor_id integer not null references actor on update cascade on delete restrict,
    film_id integer not null references film on update cascade on delete restrict,
    last_update timestamptz not null default now(), primary key (actor_id, film_id)
);
create table film_category (
    film_id integer not null references film, category_id integer not null references category,
    last_update timestamptz not null default now(), primary key (film_id, category_id)
);
create table country (
    country_id serial primary key, country text not null, last_update timestamptz not null default now()
);
create table city (
    city_id serial primary key, city text not null, country_id integer not null references country,
    last_update timestamptz not null default now()
);
create table address (
    address_id serial primary key, address text not null, address2 text, district text not null,
    city_id integer not null references city, postal_code text, phone text not null,
    last_update timestamptz not null default now()
);
create table store (
    store_id serial primary key, manager_staff_id integer not null, address_id integer not null references address,
    last_update timestamptz not null default now()
);
create table staff (
    staff_id serial primary key, first_name text not null, last_name text not null,
    address_id integer not null references address, email text, store_id integer not null references store,
    active boolean not null default true, username text not null, password text,
    last_update timestamptz not null default now(), picture bytea
);
alter table store add constraint store_manager_staff_id_fkey
    foreign key (manager_staff_id) references staff deferrable initially deferred;
create unique index idx_unq_manager_staff_id on store (manager_staff_id);
create table customer (
    customer_id serial primary key, store_id integer not null references store, first_name text not null,
    last_name text not null, email text, address_id integer not null references address,
    activebool boolean not null default true, create_date date not null default current_date,
    last_update timestamptz default now(), active integer
);
create table inventory (
    inventory_id serial primary key, film_id integer not null references film, store_id integer not null references store,
    last_update timestamptz not null default now()
);
create index idx_store_id_film_id on inventory (store_id, film_id);
create table rental (
    rental_id serial primary key, rental_date timestamptz not null,
    inventory_id integer not null references inventory, customer_id integer not null references customer,
    return_date timestamptz, staff_id integer not null references staff,
    last_update timestamptz not null default now()
);
create unique index idx_unq_rental on rental (rental_date, inventory_id, customer_id);

create table payment (
    payment_id integer generated by default as identity, customer_id integer not null, staff_id integer not null,
    rental_id integer not null, amount numeric(5, 2) not null, payment_date timestamptz not null,
    primary key (payment_date, payment_id)
) partition by range (payment_date);
create index on payment (customer_id);
do $$
declare month timestamptz := date_trunc('month', now() - interval '8 months', 'UTC');
begin
    for n in 0..10 loop
        execute format('create table %I partition of payment for values from (%L) to (%L)',
            'payment_' || to_char(month at time zone 'UTC', 'YYYY_MM'), month,
            (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
        month := (month at time zone 'UTC' + interval '1 month') at time zone 'UTC';
    end loop;
end $$;
alter table payment add foreign key (customer_id) references customer, add foreign key (staff_id) references staff;

create function inventory_in_stock(p_inventory_id integer) returns boolean language plpgsql as $$
declare
    v_rentals integer;
    v_out integer;
begin
    -- An item is in stock if there are either no rows in rental for it, or all of them have a return date.
    select count(*) into v_rentals from rental where inventory_id = p_inventory_id;
    if v_rentals = 0 then
        return true;
    end if;
    select count(rental_id) into v_out from inventory left join rental using (inventory_id)
    where inventory.inventory_id = p_inventory_id and rental.return_date is null;
    return v_out = 0;
end $$;

create view actor_info as
    select a.actor_id, a.first_name, a.last_name,
           group_concat(distinct c.name || ': ' || (
               select group_concat(f.title) from film f join film_category fc using (film_id)
               join film_actor fa using (film_id) where fc.category_id = c.category_id and fa.actor_id = a.actor_id))
               as film_info
    from actor a left join film_actor fa using (actor_id) left join film_category fc using (film_id)
    left join category c using (category_id) group by a.actor_id, a.first_name, a.last_name;
create view film_list as
    select f.film_id as fid, f.title, f.description, c.name as category, f.rental_rate as price, f.length, f.rating
    from category c left join film_category fc using (category_id) left join film f using (film_id);
create view sales_by_store as
    select s.store_id, sum(p.amount) as total_sales from payment p join staff s using (staff_id) group by s.store_id;
create materialized view rental_by_category as
    select c.name as category, sum(p.amount) as total_sales
    from payment p join rental r using (rental_id) join inventory i using (inventory_id)
    join film_category fc using (film_id) join category c using (category_id) group by c.name;
create unique index rental_category on rental_by_category (category);

create rule no_deletes as on delete to language do instead nothing;
comment on table film is 'One row for each title';
comment on column film.rental_rate is 'US dollars, from 0 to 99';
comment on function last_day(timestamptz) is 'The last day of the month';

do $$
declare name text;
begin
    foreach name in array array['language', 'category', 'actor', 'film', 'film_actor', 'film_category', 'country', 'city',
                                'address', 'store', 'staff', 'customer', 'inventory', 'rental'] loop
        execute format('create trigger last_updated before update on %I for each row execute function last_updated()', name);
    end loop;
end $$;

insert into language (name) values ('English'), ('Italian'), ('Japanese'), ('Mandarin'), ('French'), ('German');
insert into category (name) select unnest(array['Action', 'Animation', 'Children', 'Classics', 'Comedy', 'Drama']);
insert into actor (first_name, last_name) select 'First' || i, 'Last' || i % 120 from generate_series(1, 200) i;
insert into film (title, description, release_year, language_id, rental_rate, length, rating, special_features)
    select 'FILM ' || i, 'A story of number ' || i, 2006, 1, (array[0.99, 2.99, 4.99])[1 + i % 3], 46 + i % 140,
           (enum_range(null::mpaa_rating))[1 + i % 5], array['Trailers', 'Commentaries']
    from generate_series(1, 1000) i;
insert into film_actor (actor_id, film_id) select distinct 1 + (i * 7) % 200, 1 + i % 1000 from generate_series(1, 5000) i;
insert into film_category (film_id, category_id) select i, 1 + i % 6 from generate_series(1, 1000) i;
insert into country (country) select 'Country ' || i from generate_series(1, 109) i;
insert into city (city, country_id) select 'City ' || i, 1 + i % 109 from generate_series(1, 600) i;
insert into address (address, district, city_id, postal_code, phone)
    select i || ' Street', 'District ' || i % 50, 1 + i % 600, lpad(i::text, 5, '0'), lpad(i::text, 12, '1')
    from generate_series(1, 603) i;
begin;
insert into store (manager_staff_id, address_id) values (1, 1), (2, 2);
insert into staff (first_name, last_name, address_id, email, store_id, username)
    values ('Mike', 'Hillyer', 3, 'mike@example.com', 1, 'Mike'), ('Jon', 'Stephens', 4, 'jon@example.com', 2, 'Jon');
commit;
insert into customer (store_id, first_name, last_name, email, address_id, active)
    select 1 + i % 2, 'First' || i, 'Last' || i, 'customer' || i || '@example.com', 1 + i % 603, 1
    from generate_series(1, 599) i;
insert into inventory (film_id, store_id) select 1 + i % 1000, 1 + i % 2 from generate_series(1, 4581) i;
insert into rental (rental_date, inventory_id, customer_id, return_date, staff_id)
    select now() - i * interval '20 minutes', 1 + (i * 13) % 4581, 1 + i % 599,
           case when i > 300 then now() - i * interval '20 minutes' + interval '3 days' end, 1 + i % 2
    from generate_series(1, 16000) i;
insert into payment (customer_id, staff_id, rental_id, amount, payment_date)
    select customer_id, staff_id, rental_id, 0.99 + rental_id % 10, rental_date from rental where rental_date <= now();
refresh materialized view rental_by_category;
analyze;

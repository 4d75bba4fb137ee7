-- Airlines, airports and planes: what flights and weather refer to.

create table airlines (
    carrier text primary key check (carrier ~ '^[0-9A-Z]{2}$'),
    name text not null
);
comment on table airlines is 'Airlines that flew from New York City.';
comment on column airlines.carrier is 'Two-character carrier code.';

create table airports (
    faa text primary key,
    name text not null,
    lat double precision not null,
    lon double precision not null,
    alt integer not null,
    tz smallint not null,
    dst text not null,
    tzone text
);
comment on table airports is 'Airports of the United States.';
comment on column airports.faa is 'FAA airport code.';
comment on column airports.lat is 'Latitude in degrees.';
comment on column airports.lon is 'Longitude in degrees.';
comment on column airports.alt is 'Altitude in feet.';
comment on column airports.tz is 'Offset from UTC in hours, outside summer time.';
comment on column airports.dst is 'Summer time: A as in the United States, U unknown, N none.';
comment on column airports.tzone is 'IANA time zone; unknown for a few.';

create table planes (
    tailnum text primary key,
    year smallint,
    type text not null,
    manufacturer text not null,
    model text not null,
    engines smallint not null,
    seats smallint not null,
    speed smallint,
    engine text not null
);
comment on table planes is 'Planes with a tail number in the register of the FAA; not every plane that flew is in it.';
comment on column planes.year is 'Year of manufacture.';
comment on column planes.speed is 'Average cruising speed in miles per hour.';

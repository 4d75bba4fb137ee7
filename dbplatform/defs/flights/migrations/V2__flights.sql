-- Every departure from New York City in a year, partitioned by the hour of its scheduled departure.
--
-- The year of the source is moved to the present by whole weeks. What that would falsify is not here: year, month, day
-- and hour follow from time_hour; sched_dep_time and the other clock times are local to the airport, as published, and may
-- differ from time_hour by the hour of summer time.

create table flights (
    carrier text not null references airlines,
    flight integer not null,
    origin text not null references airports,
    time_hour timestamptz not null,
    dest text not null,
    tailnum text,
    sched_dep_time smallint not null,
    dep_time smallint,
    dep_delay smallint,
    sched_arr_time smallint not null,
    arr_time smallint,
    arr_delay smallint,
    air_time smallint,
    distance smallint not null,
    primary key (carrier, flight, origin, time_hour)
) partition by range (time_hour);
create index flights_time_hour_idx on flights (time_hour);
create index flights_tailnum_idx on flights (tailnum);
comment on table flights is 'Departures from New York City, one row per flight.';
comment on column flights.carrier is 'Two-character carrier code.';
comment on column flights.flight is 'Flight number.';
comment on column flights.origin is 'FAA code of the airport of departure: EWR, JFK or LGA.';
comment on column flights.time_hour is 'Scheduled departure, cut to the hour; moved to the present by whole weeks.';
comment on column flights.dest is 'FAA code of the destination; four of them are not among the airports.';
comment on column flights.tailnum is 'Tail number of the plane; one in seven is not among the planes.';
comment on column flights.sched_dep_time is 'Scheduled departure as local clock time, hhmm.';
comment on column flights.dep_time is 'Departure as local clock time, hhmm; none for a cancelled flight.';
comment on column flights.dep_delay is 'Minutes late at departure; early is negative.';
comment on column flights.sched_arr_time is 'Scheduled arrival as local clock time, hhmm.';
comment on column flights.arr_time is 'Arrival as local clock time, hhmm.';
comment on column flights.arr_delay is 'Minutes late at arrival; early is negative.';
comment on column flights.air_time is 'Minutes in the air.';
comment on column flights.distance is 'Miles between the airports.';

-- Departures, cancellations and delays per day and airport.
create or replace view delays_by_day as
select
    (time_hour at time zone 'America/New_York')::date as day,
    origin,
    count(*) as scheduled,
    count(*) filter (where dep_time is null) as cancelled,
    round(avg(dep_delay), 1) as mean_dep_delay,
    percentile_cont(0.9) within group (order by dep_delay) as p90_dep_delay
from flights
group by 1, 2;
comment on view delays_by_day is 'Departures, cancellations and delays in minutes, per day and airport.';

-- What a board shows of an hour: its departures, and the weather then. How many hours there are is declared.
\set hour random(0, :hours - 1)
select f.carrier, f.flight, f.dest, f.dep_delay, a.name from flights f join airlines a using (carrier)
where f.origin = 'JFK' and f.time_hour = (select max(time_hour) from weather) - make_interval(hours => :hour)
order by f.sched_dep_time;
select temp, wind_speed, visib from weather
where origin = 'JFK' and time_hour = (select max(time_hour) from weather) - make_interval(hours => :hour);

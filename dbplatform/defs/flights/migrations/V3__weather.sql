-- Hourly weather at the three airports, moved to the present together with the flights.

create table weather (
    origin text not null references airports,
    time_hour timestamptz not null,
    temp real,
    dewp real,
    humid real,
    wind_dir smallint,
    wind_speed double precision,
    wind_gust double precision,
    precip real not null,
    pressure real,
    visib real not null,
    primary key (origin, time_hour)
) partition by range (time_hour);
create index weather_time_hour_idx on weather (time_hour);
comment on table weather is 'Hourly weather at the airports of New York City.';
comment on column weather.temp is 'Temperature in degrees Fahrenheit.';
comment on column weather.dewp is 'Dew point in degrees Fahrenheit.';
comment on column weather.humid is 'Relative humidity in percent.';
comment on column weather.wind_dir is 'Direction of the wind in degrees.';
comment on column weather.wind_speed is 'Speed of the wind in miles per hour; one reading of the source is impossible.';
comment on column weather.wind_gust is 'Speed of gusts in miles per hour.';
comment on column weather.precip is 'Rain in inches.';
comment on column weather.pressure is 'Pressure at sea level in millibars.';
comment on column weather.visib is 'Visibility in miles.';

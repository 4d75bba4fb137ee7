drop table encounters;

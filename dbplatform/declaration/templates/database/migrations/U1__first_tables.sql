-- Takes V1 back, with all that the tables hold.
-- dbplatform:allow drop table

drop table orders;
drop table customer;

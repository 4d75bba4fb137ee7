drop table users;
drop table organizations;
drop function set_updated_at();

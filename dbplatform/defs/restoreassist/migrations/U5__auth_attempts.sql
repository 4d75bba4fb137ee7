drop table auth_attempts;

drop table sessions;
drop table organization_invitations;
drop table organization_members;
drop table organizations;
drop table users;
drop table _prisma_migrations;

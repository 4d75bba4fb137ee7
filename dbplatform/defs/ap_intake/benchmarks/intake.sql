-- One document comes in, is read and validated: three short transactions of one client.
\set number random(1, 1000000000)
insert into invoices (file_name, file_hash, file_bytes, currency, net_amount, tax_amount, total_amount)
values ('bench.pdf', encode(sha256(:number::text::bytea), 'hex'), 20000, 'EUR', 100.00, 19.00, 119.00)
returning id as invoice \gset
update invoices set workflow_state = 'parsed' where id = :invoice;
update invoices set workflow_state = 'validated' where id = :invoice;

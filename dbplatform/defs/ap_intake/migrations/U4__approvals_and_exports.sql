drop table staged_exports;
drop table approvals;

drop function perform_maintenance();

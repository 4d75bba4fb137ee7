"""Checks of a large table by streaming its columns once: the server only scans, the client judges batch by batch."""

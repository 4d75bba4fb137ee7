#!/usr/bin/env bash
# Run a command with the data of its embedded servers in memory, where root may and there is room: thousands of databases
# are made and dropped, and a file system without a journal looks at each file that was lately removed before it makes one
# (two fifths of all CPU time of the tests). Nobody else sees that memory, and the servers of this machine are out of reach.
set -eu
gigabytes=$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo 2>/dev/null || echo 0)
if [ "$(id -u)" = 0 ] && [ "$gigabytes" -ge 12 ] && unshare --mount true 2>/dev/null; then
    mkdir -p /var/lib/dbplatform
    exec unshare --mount sh -c 'mount -t tmpfs -o mode=755 tmpfs /var/lib/dbplatform && exec "$@"' sh "$@"
fi
exec "$@"

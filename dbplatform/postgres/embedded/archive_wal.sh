#!/bin/sh
# archive_command of the embedded server: PATH NAME. Lets WAL go that nothing can use (see EmbeddedServer.keep_wal);
# puts a finished WAL file into the spool beside the data directory: whole, on disk, and never over a different one.
# The server asks again until the answer is 0, also after a crash for a file that is here already.
set -eu
from=$1 name=$2 spool=$(dirname "$0")/wal
part=$spool/.$name.part
[ -e "$spool/.let_go" ] && exit 0
if [ -e "$spool/$name" ]; then
    cmp -s "$from" "$spool/$name" && exit 0
    echo "$spool/$name is there with other content" >&2
    exit 1
fi
cp "$from" "$part"
sync "$part"
# A hard link, because it fails where the name is taken.
ln "$part" "$spool/$name"
rm "$part"
sync "$spool"

#!/usr/bin/env bash
# The tests drive Chromium, a second PostgreSQL (version 15, with HypoPG and pg_repack), PgBouncer, Redis and network
# namespaces, which no wheel holds: install Debian's packages as root, otherwise say what is missing and fail. No PostgreSQL
# cluster of the machine is made, and no Redis of it is started.
set -eu
export PATH="$PATH:/usr/sbin"
missing=""
command -v chromium >/dev/null || missing="chromium"
command -v pgbouncer >/dev/null || missing="$missing pgbouncer"
test -x /usr/lib/postgresql/15/bin/postgres || missing="$missing postgresql-15"
test -f /usr/share/postgresql/15/extension/hypopg.control || missing="$missing postgresql-15-hypopg"
test -f /usr/share/postgresql/15/extension/pg_repack.control || missing="$missing postgresql-15-repack"
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v ip >/dev/null || missing="$missing iproute2"
test -n "$missing" || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing for the tests: $missing"
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d # by which Debian asks whether a package may start its service
    test -e $policy || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && trap 'rm -f $policy' EXIT; }
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends postgresql-common >/dev/null
    test -x /usr/lib/postgresql/15/bin/postgres ||
        sed -i 's/^#\? *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
    exit 0
fi
echo "The tests need more of Debian: install it by 'sudo apt-get install $missing', then run 'make test' again." >&2
exit 1

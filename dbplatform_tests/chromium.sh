#!/usr/bin/env bash
# The browser tests drive Debian's Chromium: install it as root, otherwise say what is missing and fail.
set -eu
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Chromium for the browser tests"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null
    exit 0
fi
echo "The browser tests need Chromium: install it by 'sudo apt-get install chromium', then run 'make test' again." >&2
exit 1

#!/usr/bin/env bash
# The browser in which the report is tried, from Debian's packages; nothing to do where there is one.
# Without apt or without root it changes nothing: the tests then say why they are skipped, or fail where CI=true.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do command -v "$name" > /dev/null && exit 0; done
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  exit 0
fi
echo "installing Chromium for the report's tests (once) ..." >&2
export DEBIAN_FRONTEND=noninteractive
quietly=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
install() { apt-get install "${quietly[@]}" --no-install-recommends chromium > /dev/null; }
install 2> /dev/null || { apt-get update "${quietly[@]}" > /dev/null && install; }

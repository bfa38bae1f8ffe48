#!/usr/bin/env bash
# What is too slow for every change: the slow tests, all tests under coverage and with the newest versions, 200 kills, and the
# quickstart from a fresh folder with its target trained.
set -euo pipefail
extras=test
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
tests/slurm/install.sh || echo "SLURM cannot be installed: its tests will say so" >&2
tests/report/install.sh || echo "Chromium cannot be installed: the report's tests will say so" >&2
OMP_NUM_THREADS=1 python -m pytest -m slow "$@"
scripts/coverage.sh
scripts/newest.sh
OMP_NUM_THREADS=1 python scripts/chaos.py --kills 200 --updates 2000
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
proxytrain sweep experiment=quickstart store="$store"
proxytrain verify experiment=quickstart store="$store"

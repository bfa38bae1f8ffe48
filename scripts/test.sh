#!/usr/bin/env bash
# The tests on a fresh clone: sets up .venv (and, as root, SLURM and Chromium), checks format and types, runs what is not slow, then
# a minute or two of faults (scripts/chaos.py).
# Arguments are passed on to pytest:  scripts/test.sh tests/fit -k chinchilla
set -euo pipefail
extras=test
cd "$(dirname "${BASH_SOURCE[0]}")/.."
{
  tests/slurm/install.sh || echo "SLURM cannot be installed: its tests will say so" >&2
  tests/report/install.sh || echo "Chromium cannot be installed: the report's tests will say so" >&2
} & # while pip installs
. scripts/setup.sh
wait
export OMP_NUM_THREADS=1
all=$([ $# -eq 0 ] && echo yes || true)
if [ "$all" ]; then
  ruff check .
  ruff format --check .
  mypy
  set -- -n 2 --dist loadfile
fi
python -m pytest -m "not slow" "$@"
if [ "$all" ]; then
  python scripts/chaos.py --updates 150 --seconds 0.3
fi

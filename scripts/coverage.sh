#!/usr/bin/env bash
# Lines of proxytrain/ that the tests run, in their own process and in all that they start; at least 90% of them.
# Arguments are passed on to pytest:  scripts/coverage.sh tests/fit
set -euo pipefail
extras=test
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python -m pip install --quiet --disable-pip-version-check 'coverage>=7.10'
rm -f .coverage .coverage.*
# left out: a disk that takes no file of more than 2,000 bytes, which coverage's own are
OMP_NUM_THREADS=1 python -m coverage run -m pytest -m "not slow" --deselect tests/test_hostile.py::test_a_full_store_ends_in_one_line_and_loses_nothing "$@"
python -m coverage combine --quiet
python -m coverage report --skip-covered --sort=cover --fail-under="$([ $# -eq 0 ] && echo 90 || echo 0)"

#!/usr/bin/env bash
# The tests with the newest version of everything, hydra's next release included, in an environment of its own. torch is
# that of constraints.txt, whose CPU build is at hand; TORCH=torch takes the newest. Arguments are passed on to pytest:
#   scripts/newest.sh tests/fit        PYTHON=python3.13 TORCH=torch scripts/newest.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check \
  "${TORCH:-$(grep '^torch==' constraints.txt)}" 'hydra-core>=1.4.0rc1' --editable '.[test]'
"$folder/bin/pip" list --disable-pip-version-check | grep -E '^(datasets|hydra-core|numpy|omegaconf|pandas|torch|wandb) '
OMP_NUM_THREADS=1 "$folder/bin/python" -m pytest -m "not slow" "$@"

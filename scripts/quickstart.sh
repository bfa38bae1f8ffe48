#!/usr/bin/env bash
# The main job on a fresh clone: sets up .venv, trains the quickstart's grid on real text, fits, predicts a larger run,
# writes the page. Arguments are passed on:  scripts/quickstart.sh sweep.name=mine data=files 'data.files=[texts/**/*.txt]'
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
proxytrain sweep experiment=quickstart "$@"

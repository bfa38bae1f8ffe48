# Sourced by the scripts beside it: makes .venv if it is missing, installs what is missing, activates it.
# `extras` names what is installed beside proxytrain itself (test).
# PYTHON names the interpreter (3.10 to 3.13). On a CUDA machine put a CUDA build of the pinned torch into .venv first.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
    echo "Python 3.10 to 3.13 is needed; $("$python" --version 2>&1) found. Set PYTHON=python3.11, say." >&2
    exit 2
  }
  "$python" -m venv .venv
fi
. .venv/bin/activate
unset PYTHONDONTWRITEBYTECODE  # modules are compiled once, when they are first imported; torch takes six seconds each time else
# installed again only when what is to be installed has changed
stamp=.venv/installed-${extras:-}-$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
if [ ! -e "$stamp" ]; then
  echo "installing into .venv (once) ..." >&2
  # not all modules are compiled now: half of the time that installing takes
  python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".${extras:+[$extras]}"
  rm -f ".venv/installed-${extras:-}-"*
  touch "$stamp"
fi

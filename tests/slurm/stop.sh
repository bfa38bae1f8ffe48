#!/usr/bin/env bash
# End the SLURM that start.sh put into DIR, with its jobs:  stop.sh DIR
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin
dir=$(realpath -m "$1")
export SLURM_CONF=$dir/slurm.conf
running() { # not a zombie: where nothing reaps, a dead daemon keeps its entry
  [ "$(cat "/proc/$1/comm" 2> /dev/null)" = "$2" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2> /dev/null
}
if running "$(cat "$dir/slurmctld.pid" 2> /dev/null)" slurmctld; then
  timeout 5 scancel --user="$(id -un)" 2> /dev/null
  for _ in $(seq 50); do
    [ -z "$(timeout 5 squeue --noheader 2> /dev/null)" ] && break
    sleep 0.2
  done
fi
for name in slurmd slurmctld munged; do
  pid=$(cat "$dir/$name.pid" 2> /dev/null) || continue
  running "$pid" $name || continue
  kill "$pid"
  for _ in $(seq 50); do
    running "$pid" $name || break
    sleep 0.1
  done
  running "$pid" $name && kill -9 "$pid"
done
exit 0

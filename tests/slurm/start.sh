#!/usr/bin/env bash
# A real SLURM of one node, as ordinary processes without systemd, cgroups or a database:
#   start.sh DIR [Key=Value ...]     keys are added to slurm.conf (JobRequeue=0, say)
# Configuration, keys, logs and spool live in DIR; commands find the cluster by SLURM_CONF=DIR/slurm.conf. Ports are
# free ones, so several can run side by side. stop.sh DIR ends it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
dir=$(realpath -m "$1")
shift
for program in munged slurmctld slurmd sbatch; do
  command -v $program > /dev/null || { echo "$program: not installed (tests/slurm/install.sh as root)" >&2; exit 1; }
done
umask 022
mkdir -p "$dir"/{munge,state,spool}
chmod 700 "$dir/munge" "$dir/state"
ports=$(python3 -c '
import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in taken))')
sed -e "s|@DIR@|$dir|; s|@HOST@|$(hostname -s)|; s|@USER@|$(id -un)|" \
  -e "s|@CTLD@|${ports% *}|; s|@SLURMD@|${ports#* }|" "$here/slurm.conf" > "$dir/slurm.conf"
printf '%s\n' "$@" >> "$dir/slurm.conf"
export SLURM_CONF=$dir/slurm.conf

head -c 128 /dev/urandom > "$dir/munge/key"
chmod 600 "$dir/munge/key"
# the socket's folder must be open to all; --force: even where a folder above it is
mkdir -p "$dir/socket"
munged --force --key-file="$dir/munge/key" --socket="$dir/socket/munge" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" --num-threads=2 2> "$dir/munged.err"
slurmctld -i > /dev/null 2> "$dir/slurmctld.err"
slurmd > /dev/null 2> "$dir/slurmd.err"
for _ in $(seq 100); do
  case $(timeout 5 sinfo --noheader --format=%T --partition=normal 2> /dev/null || true) in
    idle) exit 0 ;;
    down* | drain*) scontrol update nodename="$(hostname -s)" state=resume 2> /dev/null || true ;;
  esac
  sleep 0.2
done
echo "SLURM does not come up; its last words:" >&2
tail -n 8 "$dir"/*.err "$dir"/*.log >&2 || true
exit 1

#!/usr/bin/env bash
# The daemons of a SLURM for tests, from Debian's or Ubuntu's packages (13 MB); nothing to do where they are.
# Without apt or without root it changes nothing: the tests then say why they are skipped, or fail where CI=true.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
command -v munged slurmctld slurmd sbatch > /dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  exit 0
fi
echo "installing SLURM for its tests (once) ..." >&2
export DEBIAN_FRONTEND=noninteractive
quietly=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
packages=(munge slurm-client slurmctld slurmd slurm-wlm-basic-plugins)
install() { apt-get install "${quietly[@]}" --no-install-recommends "${packages[@]}" > /dev/null; }
install 2> /dev/null || { apt-get update "${quietly[@]}" > /dev/null && install; }

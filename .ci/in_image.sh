#!/usr/bin/env bash
# Runs a command in a mounted image as an orchestrator would: user 10001, process 1 of a process namespace of its own,
# read-only root, writable only /tmp and the state folder. The configuration is deploy/compose/.
#   .ci/in_image.sh ROOT COMMAND…
set -euo pipefail
config=$(cd "$(dirname "$0")/../deploy/compose" && pwd)
if [ "${1:-}" != --isolated ]; then
  exec unshare --mount --pid --fork --kill-child bash "$0" --isolated "$@"
fi
root=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount --bind "$config" "$root/etc/bridge"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o uid=10001,gid=10001,mode=0700 tmpfs "$root/var/lib/bridge"
exec chroot --userspec=10001:10001 "$root" /usr/bin/env -i PATH=/opt/bridge/bin:/usr/local/bin:/usr/bin:/bin \
  HOME=/var/lib/bridge STATE_DIRECTORY=/var/lib/bridge PYTHONDONTWRITEBYTECODE=1 "$@"

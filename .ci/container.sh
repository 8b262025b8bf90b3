#!/usr/bin/env bash
# Builds the Dockerfile with buildah and tries the image: no Docker engine, no image registry. The base image is a stand-in
# of the same name, made of Debian packages, so Python is Debian's. Needs root, and buildah, uidmap and mmdebstrap.
#   .ci/container.sh [CACHE_FOLDER]        (default .ci/cache; the base's archive is kept there)
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$(mkdir -p "${1:-.ci/cache}" && cd "${1:-.ci/cache}" && pwd)
work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot
storage=(--storage-driver vfs --root "$work/storage" --runroot "$work/run")

cleanup() {
  buildah "${storage[@]}" umount --all >"$work/log" || cat "$work/log"
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

make_base() { # a root file system with what the python image has and we use
  local sources=/etc/apt/sources.list.d/debian.sources suite
  [ -e "$sources" ] || sources=/etc/apt/sources.list
  suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  apt-config dump | grep -E '^Acquire::(Check|http|https|Retries)' >"$work/apt.conf" || true
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    --aptopt="$work/apt.conf" "$suite" "$work/base.tar" "$sources"
  mv "$work/base.tar" "$cache/base.tar"
}

pip_here() { # how this machine's pip reaches its packages, as a pip.conf and the files that it names
  env -u PIP_CONSTRAINT -u PIP_QUIET python3 -m pip config list | sed -n -E "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" |
    awk -F ' = ' '!seen[$1]++' | { echo '[global]'; cat; } >"$work/pip.conf"
  mounts=(--volume "$work/pip.conf:/etc/pip.conf:ro")
  local word path
  sed -E 's/^[a-z-]+ = //' "$work/pip.conf" | tr ' ' '\n' >"$work/words"
  while read -r word; do
    path=${word#file://}
    [ "$path" = "$word" ] || path=$(dirname "$path") # an index's files lie beside it
    case $path in /*) [ ! -e "$path" ] || mounts+=(--volume "$path:$path:ro") ;; esac
  done <"$work/words"
}

[ -e "$cache/base.tar" ] || make_base
pip_here
base=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)

printf 'FROM scratch\nADD base.tar /\n' >"$work/Dockerfile.base"
buildah "${storage[@]}" bud --quiet --tag "$base" --file "$work/Dockerfile.base" "$cache" >"$work/log"
mkdir "$work/node" && cp "$(node -p process.execPath)" "$work/node/node" # in place of the node image
printf 'FROM scratch\nADD node /usr/local/bin/node\n' >"$work/Dockerfile.node"
buildah "${storage[@]}" bud --quiet --tag "$(sed -n 's/^ARG NODE_IMAGE=//p' Dockerfile)" --file "$work/Dockerfile.node" "$work/node" >"$work/log"
build() { # TAG ARGUMENTS…
  buildah "${storage[@]}" bud --quiet --pull-never --format docker --build-arg EXTRAS=local "${mounts[@]}" \
    --tag "$@" . >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
}
build bridge
buildah "${storage[@]}" inspect --type image bridge >"$work/image.json"
python3 - "$work/image.json" <<'PY'
import json, sys

config = json.load(open(sys.argv[1]))["Docker"]["config"]
print({key: config[key] for key in ("User", "Entrypoint", "Cmd", "StopSignal", "Healthcheck")})
assert config["Entrypoint"] == ["bridge"] and config["Cmd"] == ["run"], config
assert config["User"] == "10001:10001" and config["StopSignal"] == "SIGTERM", config
assert config["Healthcheck"]["Test"] == ["CMD", "bridge", "health"], config
secrets = [word for word in config["Env"] if "SECRET" in word or "TOKEN" in word or "PASSWORD" in word]
assert not secrets, secrets
PY

container=$(buildah "${storage[@]}" from --pull-never bridge)
mounted=$(buildah "${storage[@]}" mount "$container")
du -sh "$mounted" | awk '{print "image: " $1}'

inside() { bash .ci/in_image.sh "$mounted" "$@"; }
inside bridge --version
inside bridge validate
inside bridge demo

# The second image runs Node.js too, and is the same otherwise.
build bridge-node --target node
with_node=$(buildah "${storage[@]}" from --pull-never bridge-node)
bash .ci/in_image.sh "$(buildah "${storage[@]}" mount "$with_node")" sh -euc '
  cd /tmp
  echo "export const handler = async event => ({ran: event})" >index.mjs
  major=$(node -p "process.versions.node.split(\".\")[0]")
  echo "functions: {it: {Runtime: nodejs$major.x, Handler: index.handler, CodeUri: .}}" >bridge.yaml
  [ "$(echo 7 | bridge invoke it -e - -c bridge.yaml)" = "{\"ran\":7}" ]
  echo "Node.js $major ran"'

# The daemon as process 1: healthy while its queue server is away, by the command that HEALTHCHECK runs, and SIGTERM ends it
# with status 0.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
listen=BRIDGE_ADMIN__LISTEN=0.0.0.0:$port
bash .ci/in_image.sh "$mounted" env "$listen" bridge run >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 30); do
  inside env "$listen" bridge health 2>"$work/health" && break
done || { cat "$work/health" "$work/daemon.log"; exit 1; }
kill -TERM "$(cat "/proc/$daemon/task/$daemon/children")"
wait "$daemon" || { status=$?; cat "$work/daemon.log"; echo "the daemon ended with $status"; exit 1; }
grep -o '"event":"[a-z_]*"' "$work/daemon.log" | sort | uniq -c

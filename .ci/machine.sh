#!/usr/bin/env bash
# What the tests, the container job and the benches need besides Python packages. Installs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${1:?the cache folder}

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
[ -x /usr/bin/aws ] || missing+=(awscli) # version 2: another aws on the path may be the first version
need cc gcc
need c++ g++
need chromedriver chromium-driver
need chromium chromium
need cmake cmake
need java openjdk-17-jre-headless
need curl curl
need git git
need make make
need node nodejs
need npm npm
need promtool prometheus
need systemd-analyze systemd
need taskset util-linux
need tmux tmux
[ -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ] || missing+=(fonts-dejavu-core) # a browser without any font draws nothing
if [ "${BRIDGE_CI_CONTAINER:-1}" != 0 ]; then
  need buildah buildah
  need newuidmap uidmap
  need mmdebstrap mmdebstrap
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$cache/apt.log" 2>&1 ||
    { cat "$cache/apt.log"; exit 1; }
fi

mapfile -t packages < <(grep -v '^#' .ci/npm-packages.txt)
if ! diff -q .ci/npm-packages.txt "$cache/npm-installed.txt" >/dev/null 2>&1; then
  echo "installing ${packages[*]}"
  npm install --prefix "$cache" --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error "${packages[@]}"
  # The one package whose scripts are run: AWS's client for Node.js compiles itself, from what it brings along.
  [ -d /usr/include/node ] && export npm_config_nodedir=/usr # else the headers are downloaded
  npm rebuild --prefix "$cache" --loglevel=error aws-lambda-ric >"$cache/build.log" 2>&1 || { tail -n 40 "$cache/build.log"; exit 1; }
  cp .ci/npm-packages.txt "$cache/npm-installed.txt"
fi

# Amazon's DynamoDB for one's own machine, in a package whose own dependencies nobody needs here. Its licence allows tests
# and forbids to pass it on: it stays in the cache.
simulator=$cache/node_modules/amplify-dynamodb-simulator
if [ ! -e "$simulator/emulator/DynamoDBLocal.jar" ]; then
  echo 'installing DynamoDB Local'
  archive=$(cd "$cache" && npm pack --silent amplify-dynamodb-simulator@2.9.30)
  rm -rf "$simulator" && mkdir -p "$simulator"
  tar -xzf "$cache/$archive" -C "$simulator" --strip-components=1
  rm "$cache/$archive"
fi

if ! command -v uv >/dev/null && [ ! -x "$cache/bin/uv" ]; then
  echo 'installing uv'
  python3 -m venv --clear "$cache/uv"
  "$cache/uv/bin/pip" install -qq uv==0.13.9
  mkdir -p "$cache/bin"
  ln -sf ../uv/bin/uv "$cache/bin/uv"
fi

# The Python runtime client runs under the user's interpreter: it is tested under each one from 3.9 on, three at least.
candidates() {
  local version
  if command -v pyenv >/dev/null; then
    for version in $(pyenv versions --bare); do echo "$(pyenv root)/versions/$version/bin/python"; done
  fi
  for version in 9 10 11 12 13 14; do command -v "python3.$version" || true; done
}
interpreters=$(
  for python in $(candidates); do
    "$python" -c 'import sys; sys.version_info >= (3, 9) and print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
  done | sort -u -V | tr '\n' ' '
)
echo "interpreters from 3.9 on: $interpreters"
[ "$(wc -w <<<"$interpreters")" -ge 3 ] || { echo "at least three are needed"; exit 1; }

#!/usr/bin/env bash
# The daemon with the newest releases of everything that it depends on, in an environment of its own. The embedded endpoint
# stays away: it pins one botocore, and so would decide which aiobotocore is tried.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?the cache folder}/newest
python3 -m venv --clear "$venv"
unset PIP_CONSTRAINT PIP_QUIET BRIDGE_REQUIRE
"$venv/bin/pip" install -qq '.[test]'
"$venv/bin/pip" list --format=freeze | grep -iE '^(aiobotocore|aiohttp|anyio|botocore|msgspec|structlog)=='
"$venv/bin/python" -m pytest -q -o addopts=--strict-markers -p no:cacheprovider tests/aws tests/sources

#!/usr/bin/env bash
# Types (TypeScript reads the comments, nothing is compiled) and lint of the page's modules.
# Needs Node.js, and installs what it uses beside this file; without Node it says so and ends well.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
if ! command -v npm >/dev/null; then
  echo "check: the page's modules are not checked: no Node.js (npm) on the path"
  exit 0
fi
[ "$here/node_modules/.package-lock.json" -nt "$here/package-lock.json" ] || npm --prefix "$here" ci --silent --no-audit --no-fund
cd "$here/../.."
"$here/node_modules/.bin/tsc" -p "$here/tsconfig.json"
"$here/node_modules/.bin/eslint" --config "$here/eslint.config.mjs" --max-warnings 0 clients/web/js

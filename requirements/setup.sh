#!/usr/bin/env bash
# Make or update the virtual environment in .venv: python, torch, the locked packages, this project.
#
#   requirements/setup.sh [cpu|cuda] [run|dev]
#
# `run` is what serving needs, `dev` (the default) adds what tests and checks need. Does nothing when .venv already holds
# what the locks ask for. Says each step in a line, with its time, and on failure what helps.
set -euo pipefail
cd "$(dirname "$0")/.."

device=${1:-cpu}
purpose=${2:-dev}
venv=${VENV:-.venv}
torch=2.13.0+cpu
torch_index=https://download.pytorch.org/whl/cpu

step() { printf '[setup] %s\n' "$*"; }
began=$SECONDS
took() { printf '[setup]     %d s\n' $((SECONDS - began)); began=$SECONDS; }
fail() { printf '\n[setup] FAILED: %s\n' "$*" >&2; exit 1; }

case $device in
  cpu) locks=(requirements/cpu.lock) ;;
  cuda) locks=(requirements/cuda.txt) ;;
  *) fail "the device is cpu or cuda, not '$device'" ;;
esac
if [ "$purpose" = dev ]; then locks+=(requirements/dev.lock); fi

stamp=$venv/.tessera-$device-$purpose
sum_of() { cat "$@" pyproject.toml requirements/setup.sh | sha256sum | cut -d' ' -f1; }
wanted=$(sum_of "${locks[@]}")
holds() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
# An environment for development has all that serving needs.
complete() { holds "$stamp" "$wanted" || { [ "$purpose" = run ] && holds "$venv/.tessera-$device-dev" "$(sum_of "${locks[@]}" requirements/dev.lock)"; }; }
build_kernels() { "$venv/bin/python" -m model_executor.kernels.build; }

if complete; then
  echo "[setup] $venv is up to date"
  build_kernels
  exit 0
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
      python=$candidate
      break
    fi
  done
fi
[ -n "$python" ] || fail "Python 3.11 is needed. On Debian 12: apt-get install python3.11 python3.11-venv. Elsewhere set PYTHON=/path/to/python3.11"

free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge 5000 ] || [ -d "$venv/lib" ] || fail "about 5 GB of free disk are needed here, there are $free_mb MB"

if [ ! -x "$venv/bin/python" ]; then
  step "making $venv with $($python --version)"
  "$python" -m venv "$venv" || fail "this Python cannot make virtual environments. On Debian: apt-get install python3.11-venv"
fi
pip() { PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

if [ "$device" = cpu ]; then
  step "1/3 torch $torch (190 MB; some minutes on a slow line)"
  # A configured index or wheel folder is tried first: adding PyTorch's index costs seconds a package where it cannot be reached.
  pip install --no-deps "torch==$torch" 2>"$venv/torch.log" ||
    pip install --no-deps --index-url "$torch_index" "torch==$torch" ||
    { cat "$venv/torch.log" >&2; fail "torch $torch is neither in pip's configured places nor at $torch_index. Check the network, or put its wheel into a folder and set PIP_FIND_LINKS to it"; }
  took
  step "2/3 $(cat "${locks[@]}" | grep -c '==') locked packages (about 1 GB)"
  pip install --no-deps "${locks[@]/#/--requirement=}" || fail "a package could not be installed; the lines above name it. Running it again goes on from here"
  took
else
  step "1/3 vLLM's CUDA build and its torch (several GB)"
  pip install --requirement requirements/cuda.txt || fail "a package could not be installed; the lines above name it"
  took
  if [ "$purpose" = dev ]; then
    step "2/3 development tools"
    pip install --no-deps --requirement=requirements/dev.lock || fail "a package could not be installed; the lines above name it"
  fi
fi

step "3/3 this project"
pip install --no-deps --no-build-isolation --editable . || fail "the project itself could not be installed"
build_kernels
echo "$wanted" >"$stamp"
took
step "done: $venv; 'source $venv/bin/activate' puts the command tessera on the path"

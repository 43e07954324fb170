"""Runs a command that cannot outlive whoever started it: `python leash.py PARENT_PID COMMAND ...`.

Linux kills the process when the thread that started it dies, however that happens (prctl(2),
PR_SET_PDEATHSIG; it survives exec). Elsewhere the command just runs and only an orderly stop ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent_pid: int, argv: list[str]) -> None:
    """Become the command. Exits 127 if there is no such command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the line above
            sys.exit("the process that started this one is gone")
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""The program `millrace`, also as `python -m millrace`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line. SIGTERM ends it as Ctrl-C does, even while it is still being imported."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from millrace.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

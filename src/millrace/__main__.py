"""`python -m millrace` is the same as `millrace`."""

from __future__ import annotations

from millrace.cli import main

if __name__ == "__main__":
    main()

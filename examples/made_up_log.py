"""Writes a trace of instructions that nobody gave, as a gateway would have logged them with --log-features.

python examples/made_up_log.py OUT [COUNT]
"""

from __future__ import annotations

import sys
from pathlib import Path

from millrace.core.lexical import lexical
from millrace.core.synthetic.instructions import instructions
from millrace.core.trace import TraceRecord, write_trace


def main(out: str, count: str = "2000") -> None:
    """Write so many requests, one a second."""
    records = (
        TraceRecord(
            id=f"made-up-{number}",
            t_s=float(number),
            input_tokens=lexical(made.text)[0] or 1,
            output_tokens=made.answer_tokens,
            lexical=lexical(made.text),
        )
        for number, made in enumerate(instructions(int(count), luck=0.8))
    )
    lines = write_trace(records, "millrace")
    Path(out).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

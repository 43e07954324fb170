"""The command line as a function, for whoever asks for it."""

from __future__ import annotations

import pytest

from millrace.cli import main
from tests.integration.cli.saying import Run, Said


@pytest.fixture
def millrace(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line in this process."""

    def run(*words: str) -> Said:
        with pytest.raises(SystemExit) as left:
            main(words)
        out, err = capsys.readouterr()
        code = left.value.code
        return Said(code if isinstance(code, int) else 0, out, err)

    return run

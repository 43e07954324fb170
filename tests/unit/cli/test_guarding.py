"""What `millrace serve` does about answers that run on, as it was typed."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.cli.guarding import guarding_of
from millrace.core.overflow import GuardSettings


def said(guard: str, reminder: str | None = None) -> dict[str, Any]:
    """Return options, by their parameters' names."""
    return {"overflow_guard": guard, "overflow_reminder": reminder}


def test_words_and_reminder_make_a_guard() -> None:
    assert guarding_of(said("off")) is None
    watching, reminding = guarding_of(said("watch")), guarding_of(said("remind,long=9", "Be brief."))
    assert watching is not None
    assert watching.guard.settings == GuardSettings()
    assert reminding is not None
    assert reminding.guard.settings == GuardSettings(reminds=True, long_tokens=9, reminder="Be brief.")


@pytest.mark.parametrize("guard", ["off", "cap"])
def test_a_reminder_that_nobody_would_get_is_refused(guard: str) -> None:
    with pytest.raises(ValueError, match="--overflow-reminder is for --overflow-guard remind"):
        guarding_of(said(guard, "Be brief."))

"""The examples that pages show are the ones in `examples/`."""

from __future__ import annotations

import pytest

from pages import ROOT, read


@pytest.mark.parametrize("name", ["own_routing_policy.py", "test_own_routing_policy.py"])
def test_the_page_on_policies_shows_the_example(name: str) -> None:
    shown = {block.option("file"): block.text for block in read(ROOT / "docs" / "add-a-policy.md").blocks}
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert shown[name] == example.replace("examples.own_routing_policy", "own_routing_policy")

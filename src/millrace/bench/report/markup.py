"""Elements of HTML and SVG as text: attributes are escaped here, children are markup already."""

from __future__ import annotations

from html import escape

__all__ = ["element", "escape", "number"]

Attribute = str | float | None


def element(name: str, *children: str, **attributes: Attribute) -> str:
    """Build an element. `class_` means class, `_` in a name means `-`, None leaves an attribute out."""
    words = "".join(_attribute(k, v) for k, v in attributes.items() if v is not None)
    return f"<{name}{words}>{''.join(children)}</{name}>"


def number(value: float) -> str:
    """A coordinate with one decimal at most: enough for a screen, small in a file."""
    return f"{value:.1f}".removesuffix(".0")


def _attribute(name: str, value: str | float) -> str:
    text = value if isinstance(value, str) else number(value)
    return f' {name.rstrip("_").replace("_", "-")}="{escape(text)}"'

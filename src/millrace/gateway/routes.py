"""Where requests for engines come in."""

from __future__ import annotations

from millrace.core.prompt import Kind

COUNT_TOKENS = b"/v1/messages/count_tokens"

INFERENCE: dict[bytes, Kind] = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "text",
    b"/v1/embeddings": "embedding",
    b"/v1/messages": "messages",
    COUNT_TOKENS: "messages",
    b"/v1/responses": "responses",
}


def path_of(target: bytes) -> tuple[bytes, bytes]:
    """Split a request target into path and query; a proxy's absolute form counts by its path."""
    if target in INFERENCE:
        return target, b""
    if not target.startswith(b"/") and b"://" in target:
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return path, query

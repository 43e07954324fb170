"""Reads the few gauges a router needs from an engine's metrics page by searching bytes, not by parsing it.

Names are vLLM's, now and before 0.10, and llama.cpp's, which says nothing of its cache.
"""

from __future__ import annotations

import re
from statistics import fmean

from millrace.core.replica import Report

RUNNING = (b"vllm:num_requests_running", b"llamacpp:requests_processing")
WAITING = (b"vllm:num_requests_waiting", b"llamacpp:requests_deferred")
KV_USAGE = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc")
CACHE_CONFIG = b"vllm:cache_config_info"

_BLOCK_SIZE = re.compile(rb'block_size="(\d+)"')
_BLOCKS = re.compile(rb'num_gpu_blocks="(\d+)"')


def read_report(page: bytes, now_s: float) -> Report:
    """Return what a metrics page says of an engine's load; engines with several ranks are summed up."""
    return Report(
        now_s=now_s,
        running=_total(page, RUNNING),
        waiting=_total(page, WAITING),
        kv_free_tokens=_kv_free_tokens(page),
    )


def _total(page: bytes, names: tuple[bytes, bytes]) -> int | None:
    values = _first_said(page, names)
    return round(sum(values)) if values else None


def _kv_free_tokens(page: bytes) -> int | None:
    usage = _first_said(page, KV_USAGE)
    capacity = sum(
        int(size[1]) * int(blocks[1])
        for line in _lines(page, CACHE_CONFIG)
        if (size := _BLOCK_SIZE.search(line)) and (blocks := _BLOCKS.search(line))
    )
    return round(capacity * (1 - fmean(usage))) if usage and capacity else None


def _first_said(page: bytes, names: tuple[bytes, bytes]) -> list[float]:
    return _values(page, names[0]) or _values(page, names[1])


def _values(page: bytes, name: bytes) -> list[float]:
    """Return a metric's usable values, one per label set."""
    values = []
    for line in _lines(page, name):
        words = line[line.rfind(b"}") + 1 :].split()
        try:
            value = float(words[0])
        except (ValueError, IndexError):
            continue
        if 0 <= value < float("inf"):
            values.append(value)
    return values


def _lines(page: bytes, name: bytes) -> list[bytes]:
    """Return what follows the name on each line that begins with it: labels, value, perhaps a timestamp."""
    pieces = (b"\n" + page).split(b"\n" + name)[1:]
    return [piece.partition(b"\n")[0] for piece in pieces if piece[:1] in (b"{", b" ")]

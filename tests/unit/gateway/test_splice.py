"""Asking for usage in layouts that a JSON library would not write."""

from __future__ import annotations

import pytest

from millrace.gateway.splice import SCAN_LIMIT_BYTES, with_model, with_usage


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options" : { } ,"a":1}', b'{"stream_options" : {"include_usage":true } ,"a":1}'),
        (
            b'{"stream_options":{"include_usage" : false , "x":"}"}}',
            b'{"stream_options":{"include_usage" : true , "x":"}"}}',
        ),
        (b'{"stream_options":{"x":[1,2]}}', b'{"stream_options":{"include_usage":true,"x":[1,2]}}'),
        (
            b'{"a":{"stream_options":{}},"stream_options":{}}',
            b'{"a":{"stream_options":{}},"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"a":"\\"stream_options\\":{}","stream_options":{}}',
            b'{"a":"\\"stream_options\\":{}","stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options":null,"stream_options":{}}',
            b'{"stream_options":null,"stream_options":{"include_usage":true}}',
        ),
        (b'{"stream_\\u006fptions":{}}', b'{"stream_\\u006fptions":{"include_usage":true}}'),
    ],
)
def test_options_in_any_layout_are_found_and_nothing_else_is_touched(body: bytes, spliced: bytes) -> None:
    assert with_usage(body, stream_options=True) == spliced


def test_a_field_too_far_away_is_not_searched_for() -> None:
    body = b'{"a":"%b","stream_options":{}}' % (b"x" * SCAN_LIMIT_BYTES)
    assert with_usage(body, stream_options=True) is None


@pytest.mark.parametrize(
    ("body", "renamed"),
    [
        (b'{"model":"a","x":{"model":"a"}}', b'{"model":"org/m","x":{"model":"a"}}'),
        (b'{"x":"\\"model\\":1", "model" : "a" }', b'{"x":"\\"model\\":1", "model" : "org/m" }'),
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":"org/m"}'),
        (b'{"x":{"model":"a"},"m\\u006fdel":"b"}', b'{"x":{"model":"a"},"m\\u006fdel":"org/m"}'),
        (b'{"x":["model"], "model"\n:\t"\\"model\\":"}', b'{"x":["model"], "model"\n:\t"org/m"}'),
    ],
)
def test_a_model_is_renamed_where_it_stands_and_nothing_else_is_touched(body: bytes, renamed: bytes) -> None:
    assert with_model(body, "org/m") == renamed

"""Images put into prompts: how many, which ones, and what they share."""

from __future__ import annotations

import pytest

from millrace.simulate import Job
from millrace.simulate.media import Images, with_images
from tests.unit.simulate.test_handover import job

IMAGES = Images(share=0.3, sizes_tokens=(32, 64), distinct=3)


def made(images: Images = IMAGES, *, blocks: int = 2) -> list[Job]:
    return list(with_images((job(f"q{n}", blocks=blocks) for n in range(400)), images))


def test_a_share_of_the_requests_has_an_image_and_the_others_stay() -> None:
    found = made()
    seeing = [one for one in found if one.request.media]
    assert 0.25 < len(seeing) / len(found) < 0.35
    assert all(one == job(one.request.id, blocks=2) for one in found if not one.request.media)
    assert all(one.prompt_tokens == 100 + one.request.encode_tokens for one in seeing)
    assert found == made()


def test_equal_images_are_equal_blocks_and_so_are_texts_behind_them() -> None:
    blocks: dict[int, tuple[int, ...]] = {}
    for one in made():
        for image in one.request.media:
            assert blocks.setdefault(image.key, one.blocks) == one.blocks == one.request.blocks
            assert len(one.blocks) == image.tokens // 16 + 2
    assert len(blocks) == 3
    assert len({one[-1] for one in blocks.values()} | {2}) == 4


def test_an_image_that_fills_no_block_shares_no_text() -> None:
    odd = made(Images(share=1.0, sizes_tokens=(40,), distinct=1))
    assert {len(one.blocks) for one in odd} == {2}


def test_no_images_change_nothing_and_impossible_ones_are_refused() -> None:
    assert not any(one.request.media for one in made(Images(share=0.0, sizes_tokens=(1,), distinct=1)))
    with pytest.raises(ValueError, match="share is 2"):
        Images(share=2, sizes_tokens=(1,), distinct=1)
    with pytest.raises(ValueError, match="must be at least 1"):
        Images(share=0.5, sizes_tokens=(), distinct=1)

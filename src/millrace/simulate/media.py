"""Requests with images, made of requests without: what an encoder has to do, and which blocks are shared."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import accumulate

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.draw import draw
from millrace.core.request import Media
from millrace.simulate.job import Job


class Images(Struct, frozen=True, kw_only=True):
    """A `share` of requests has an image, of one of these sizes in tokens, each as often.

    It is one of so many `distinct` ones, the k-th 1/k as often as the first (Zipf). Everything is drawn from
    the request's id and `seed`.
    """

    share: float
    sizes_tokens: tuple[int, ...]
    distinct: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be from 0 to 1")
        if self.distinct < 1 or not self.sizes_tokens or min(self.sizes_tokens) < 1:
            raise ValueError("distinct and sizes_tokens must be at least 1")


def with_images(jobs: Iterable[Job], images: Images) -> Iterator[Job]:
    """Put images in front of the prompts of some jobs; sessions keep theirs, so that their turns share it.

    The blocks of an image are named by its content, and those of a text behind it by that and their own.
    """
    bounds = list(accumulate(1 / k for k in range(1, images.distinct + 1)))
    for job in jobs:
        name = job.request.session or job.request.id
        if draw("image", name, images.seed) / 2**64 >= images.share:
            yield job
            continue
        number = bisect(bounds, draw("which image", name, images.seed) / 2**64 * bounds[-1])
        key = draw("image content", min(number, images.distinct - 1), images.seed)
        yield _seeing(job, Media("image", key, images.sizes_tokens[key % len(images.sizes_tokens)]))


def _seeing(job: Job, image: Media) -> Job:
    own = tuple(draw("image block", image.key, n) >> 1 for n in range(image.tokens // job.block_tokens))
    # A text shares blocks only behind the same image, and if that fills its last block.
    whole = image.tokens % job.block_tokens == 0
    behind = tuple((block ^ image.key) >> 1 for block in job.blocks) if whole else ()
    prompt_tokens = job.prompt_tokens + image.tokens
    asked = replace(job.request, prompt_tokens=prompt_tokens, blocks=own + behind, media=(image,))
    return replace(job, request=asked, prompt_tokens=prompt_tokens, blocks=own + behind)

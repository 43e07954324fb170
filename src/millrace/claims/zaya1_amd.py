"""Collectives follow a start and a rate, so a machine's links can be characterised and priced.

The paper times all core collectives over message sizes and device counts on MI300X and Pollara. Here they are
NCCL's all-reduce and send-receive on A100 and H100 DGX machines, 2 KiB to 64 MiB, 2 to 16 devices, as Vidur
recorded them. A start and a rate are fitted to every second size and predict the others. That holds inside a
machine and where each machine sends with one device. It does not where several devices of two machines take
part: NCCL changes its algorithm with the size there. So the threshold does not cover those, and a curve
through 16 measured sizes is what predicts them. Reduce-scatter, all-gather and broadcast are not in the data.

Source: Anthony et al., Training Foundation Models on a Full-Stack AMD Platform, arXiv:2511.17127; data:
microsoft/vidur (MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millrace.claims import Check, Kind
from millrace.claims.measured import Series, collectives
from millrace.core.cost.curve import Curve, curve
from millrace.core.stats import mean

KIND: Kind = "modelled"
KNOTS = 16

Predict = Callable[[float], float]


def measure(series: Sequence[Series] | None = None) -> list[Check]:
    """Fit to every second size of each series and predict the sizes between."""
    every = collectives() if series is None else series
    simple = [one for one in every if one.single_rail]
    others = [one for one in every if not one.single_rail]
    return [
        Check(what="series", value=len(every)),
        Check(what="least R2 of a line, one rail", value=min(map(_line_r2, simple)), at_least=0.9),
        Check(
            what="largest mean error of a line, one rail",
            value=100 * max(map(_line_error, simple)),
            unit="%",
            at_most=25,
        ),
        Check(
            what="largest mean error of a line, several rails",
            value=100 * max(map(_line_error, others)),
            unit="%",
        ),
        Check(
            what="largest mean error of a curve through 16 sizes, several rails",
            value=100 * max(map(_curve_error, others)),
            unit="%",
            at_most=25,
        ),
    ]


def _halves(series: Series) -> tuple[list[int], list[int]]:
    sizes = sorted(series.seconds)
    return sizes[::2], sizes[1::2]


def _line(series: Series) -> Predict:
    return series.fitted(_halves(series)[0]).all_reduce_s


def _curve(series: Series) -> Curve:
    """Through sizes that lie closer together the smaller they are."""
    seen = _halves(series)[0]
    places = {round((len(seen) - 1) * (i / (KNOTS - 1)) ** 2) for i in range(KNOTS)}
    return curve({seen[place]: series.seconds[seen[place]] for place in places})


def _line_error(series: Series) -> float:
    return _error(series, _line(series))


def _curve_error(series: Series) -> float:
    return _error(series, _curve(series).at)


def _error(series: Series, predict: Predict) -> float:
    return mean(abs(predict(size) / series.seconds[size] - 1) for size in _halves(series)[1])


def _line_r2(series: Series) -> float:
    """The share of the held-out times' variance that the line explains."""
    predict, held_out = _line(series), _halves(series)[1]
    usual_s = mean(series.seconds[size] for size in held_out)
    missed = sum((series.seconds[size] - predict(size)) ** 2 for size in held_out)
    return 1 - missed / sum((series.seconds[size] - usual_s) ** 2 for size in held_out)

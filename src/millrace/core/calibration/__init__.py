"""Finds out what an engine's steps cost from what its clients see: which points to measure, and the fit."""

from millrace.core.calibration.fitting import Fitted, fitted
from millrace.core.calibration.points import Kind, Point, points
from millrace.core.calibration.recorded import Recorded, recorded
from millrace.core.calibration.scattered import Scattered
from millrace.core.calibration.shared import Shared, Timed, fit_shared
from millrace.core.calibration.timings import Sample, Stream, answer_tokens, sample, stream_of

__all__ = [
    "Fitted",
    "Kind",
    "Point",
    "Recorded",
    "Sample",
    "Scattered",
    "Shared",
    "Stream",
    "Timed",
    "answer_tokens",
    "fit_shared",
    "fitted",
    "points",
    "recorded",
    "sample",
    "stream_of",
]

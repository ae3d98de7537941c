"""How much a case asks for, from its settings alone: to share cases out and to estimate the time left."""

from __future__ import annotations

from bench.suite.case import Case

# Their denoiser is called twice in each step but the last.
_TWO_CALLS = frozenset({"heun", "kdpm2", "kdpm2-ancestral"})
# What encoding and decoding a picture takes, and comparing a case and counting its work, in steps of one picture.
_PER_PICTURE, _PER_CASE = 3, 20
# Edge in pixels of pictures of a usual size.
_EMBEDDED_SIZE, _USUAL_SIZE = 64, 512


def effort(case: Case) -> float:
    """Rough cost of a case, in denoiser calls for one picture of 64 by 64 pixels.

    On the 492 goldens (2 cores), shards by this estimate take at most 1.2 times their mean with up to 5 of them, and
    1.4 times with 16.
    """
    settings = case.settings
    calls = 2 if settings.scheduler in _TWO_CALLS else 1
    guided = 2 if settings.guidance and settings.guidance > 1 else 1
    size = settings.size or (_EMBEDDED_SIZE if case.model.source == "embedded" else _USUAL_SIZE)
    pictures = settings.images * (size / _EMBEDDED_SIZE) ** 2
    return (settings.steps * calls * guided + _PER_PICTURE) * pictures + _PER_CASE

"""Every verdict of the suite: its word, how bad it is, whether a case passes with it, and how it is shown.

Files store the word alone, as plain text; ``Verdict(word)`` is the verdict of a word. The worker that runs under old
libraries imports this module too, so it needs nothing but Python 3.10 and its standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, IntEnum


class _Word(str, Enum):  # noqa: UP042, StrEnum is newer than Python 3.10
    """Members that equal their words and print as them."""

    def __str__(self) -> str:
        return str(self.value)


class Kind(_Word):
    """What a verdict means to its reader, in the order in which reports list them.

    The value is the CSS class of its style; the sign goes with it, so that no kind is shown by colour alone.
    """

    BAD = "bad", "✗"
    UNSURE = "unsure", "?"
    GOOD = "good", "✓"
    NOTE = "note", "·"

    sign: str

    def __new__(cls, style: str, sign: str = "") -> Kind:
        kind = str.__new__(cls, style)
        kind._value_ = style
        kind.sign = sign
        return kind


class Rank(IntEnum):
    """How bad a verdict is: to sort by, and to find the worst of several."""

    AS_BEFORE = 0
    NO_WORSE = 1  # not as before, and no worse
    OPEN = 2  # may be worse
    COST = 3  # the right pictures, at a higher or an unknown cost
    WRONG = 4  # other pictures, or another error, than before


class Verdict(_Word):
    """A verdict, equal to its word.

    Attributes:
        rank: how bad it is.
        kind: what it means where two runs or two sides are compared.
        kind_of_case: what it means as the verdict of a case that is compared with its golden. There even good news is
            bad until the golden is updated.
    """

    # Of pictures, and of a case.
    RAISES = "raises", Rank.WRONG, Kind.BAD
    RAISES_NOW = "raises now", Rank.WRONG, Kind.BAD
    DIED = "process died", Rank.WRONG, Kind.BAD
    NOT_RUN = "not run", Rank.WRONG, Kind.BAD
    BROKEN = "broken", Rank.WRONG, Kind.BAD
    MISSING = "missing", Rank.WRONG, Kind.BAD
    STALE = "stale", Rank.WRONG, Kind.BAD
    RAISES_ELSE = "raises something else", Rank.WRONG, Kind.BAD
    WORKS_NOW = "works now", Rank.WRONG, Kind.GOOD, Kind.BAD
    NOTHING_COMPARED = "nothing compared", Rank.WRONG, Kind.BAD
    NOT_REPEATABLE = "not repeatable", Rank.WRONG, Kind.BAD
    CHANGED = "changed", Rank.WRONG, Kind.BAD
    WORK_MISSING = "work missing", Rank.COST, Kind.BAD
    NOT_COMPARED = "not compared", Rank.OPEN, Kind.NOTE
    WITHIN_LIMITS = "within limits", Rank.NO_WORSE, Kind.GOOD
    IDENTICAL = "identical", Rank.AS_BEFORE, Kind.GOOD
    RAISES_AS_BEFORE = "raises as before", Rank.AS_BEFORE, Kind.GOOD
    FIRST = "first", Rank.AS_BEFORE, Kind.NOTE
    REFERENCE = "compared with", Rank.AS_BEFORE, Kind.NOTE

    # Of counted work.
    MORE_WORK = "more work", Rank.COST, Kind.BAD
    LESS_WORK = "less work", Rank.NO_WORSE, Kind.GOOD, Kind.BAD
    SAME_WORK = "same work", Rank.AS_BEFORE, Kind.GOOD

    # Of time and memory.
    SLOWER = "slower", Rank.COST, Kind.BAD
    MORE = "more", Rank.COST, Kind.BAD
    CANNOT_TELL = "cannot tell", Rank.OPEN, Kind.UNSURE
    FASTER = "faster", Rank.NO_WORSE, Kind.GOOD
    LESS = "less", Rank.NO_WORSE, Kind.GOOD
    SAME = "same", Rank.AS_BEFORE, Kind.GOOD

    # Of other changes in a release.
    OTHER_CALLS = "other number of UNet calls", Rank.OPEN, Kind.NOTE
    WARNS = "new warning", Rank.NO_WORSE, Kind.NOTE

    rank: Rank
    kind: Kind
    kind_of_case: Kind

    def __new__(
        cls, word: str, rank: Rank = Rank.WRONG, kind: Kind = Kind.BAD, kind_of_case: Kind | None = None
    ) -> Verdict:
        verdict = str.__new__(cls, word)
        verdict._value_ = word
        verdict.rank = rank
        verdict.kind = kind
        verdict.kind_of_case = kind_of_case or kind
        return verdict

    @property
    def is_worse(self) -> bool:
        """Whether it says that a run or a side is worse than the one before."""
        return self.kind is Kind.BAD

    @property
    def passes(self) -> bool:
        """Whether a case with this verdict passes; one that neither passes nor fails is skipped."""
        return self.kind_of_case is Kind.GOOD

    @property
    def fails(self) -> bool:
        return self.kind_of_case is Kind.BAD

    @property
    def css_class(self) -> str:
        """The CSS class of its mark in the report."""
        return self.value.replace(" ", "-")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The first of those with the highest rank."""
    return max(verdicts, key=lambda verdict: verdict.rank)


def verdict_of_errors(before: object | None, now: object | None) -> Verdict:
    """The verdict on a case if at least one of two calls raised; ``None`` stands for a call that did not."""
    if before == now:
        return Verdict.RAISES_AS_BEFORE
    if now is None:
        return Verdict.WORKS_NOW
    return Verdict.RAISES_NOW if before is None else Verdict.RAISES_ELSE

"""What some cases have in common that no other case has: the fewest settings that describe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of two equally simple descriptions, the one with the earlier setting is given.
_SIMPLE = ("model", "scheduler", "task", "scenario", "dtype", "guidance", "steps", "size", "images", "tag", "seed")
_OPTIMIZATION, _OPTION, _ARGUMENT, _SENTINEL = "optimization", "option", "argument", "sentinel group"
_RANKS = {name: rank for rank, name in enumerate((*_SIMPLE[:4], _OPTIMIZATION, *_SIMPLE[4:], _SENTINEL))}
_RANK_OF_OPTIONS = _RANKS["dtype"] + 0.5
_COUNTED = {"steps": "step", "images": "image"}
# What a case has without saying so.
_USUAL = {"task": "text-to-image", "scenario": "plain"}
ANY = "any value"
MOST_VALUES = 6

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Trait:
    """A setting and the values that it may have; ``(ANY,)`` for an option that is given at all."""

    setting: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        values = _joined(self.values, "or")
        if self.values == (ANY,):
            return self.setting
        if self.setting in _COUNTED:
            return f"{values} {_COUNTED[self.setting]}{'' if self.values == ('1',) else 's'}"
        separator = "=" if self.setting.startswith((_OPTION, _ARGUMENT)) else " "
        return f"{self.setting}{separator}{values}"

    @property
    def rank(self) -> float:
        return _RANKS.get(self.setting, _RANK_OF_OPTIONS)


@dataclass(frozen=True)
class Cover:
    """Describes a group of cases among all cases.

    Attributes:
        traits: up to two; the description is the cases that have all of them. Without any it is all cases.
        covered: cases of the group that are described.
        described: all cases that are, of the group or not.
        size: cases of the group.
        total: all cases.
    """

    traits: tuple[Trait, ...]
    covered: int
    described: int
    size: int
    total: int

    @property
    def is_exact(self) -> bool:
        """Whether the described cases are those of the group, and no others."""
        return self.covered == self.described == self.size

    @property
    def subject(self) -> str:
        """Such as ``all 13 cases with scheduler ddim`` or ``13 of the 15 cases with scheduler ddim and 2 others``."""
        others = self.size - self.covered
        more = f", and {others} other{'' if others == 1 else 's'}," if others else ""
        return f"{self._described()}{more}"

    def _described(self) -> str:
        having = f" with {_joined(tuple(map(str, self.traits)), 'and')}" if self.traits else ""
        if self.covered < self.described:
            return f"{self.covered:,} of {'the ' if having else ''}{self.described:,} cases{having}"
        if self.covered <= 2:
            return f"{'both cases' if self.covered == 2 else 'the only case'}{having}"
        return f"all {self.covered:,} cases{having}"

    def sentence(self, predicate: str) -> str:
        """The group as a sentence without a full stop.

        Args:
            predicate: what the cases do, in the plural, such as ``raise "ValueError: no"``.
        """
        all_of_them = self.traits and self.covered == self.size < self.total
        return f"{self.subject} {predicate}{'; no other case does' if all_of_them else ''}"


@dataclass(frozen=True)
class _Candidate:
    """A description, and the cases that it describes as bits."""

    traits: tuple[Trait, ...]
    mask: int

    @property
    def cost(self) -> int:
        """How many words it takes: its values, and one for a second setting."""
        return sum(len(trait.values) for trait in self.traits) + max(0, len(self.traits) - 1)

    @property
    def order(self) -> tuple[Any, ...]:
        ranks = sorted(trait.rank for trait in self.traits)
        return self.cost, len(self.traits), ranks, tuple(map(str, self.traits))


def smallest_cover(group: Sequence[Settings], rest: Sequence[Settings]) -> Cover:
    """The simplest description of a group of cases.

    A description is a setting with one or several values (``scheduler ddim or lcm``), or two settings of which one has
    a single value (``dtype bfloat16 and scheduler ddim or lcm``). One that is exact is preferred, and of these the one
    with the fewest values. Otherwise it is the one with the fewest exceptions and values together, if it describes more
    than half of the group and the group is more than half of what it describes; failing that, it is all cases.

    Args:
        group: settings of each case, as ``Settings.described`` gives them, with its ``model``.
        rest: those of all other cases.

    Raises:
        ValueError: the group is empty.
    """
    if not group:
        raise ValueError("an empty group has nothing in common")
    everything = (1 << len(group) + len(rest)) - 1
    wanted = (1 << len(group)) - 1
    nothing = _Candidate((), everything)
    candidates = list(_candidates(_masks((*group, *rest)), wanted, everything)) if rest else []
    exact = [candidate for candidate in candidates if candidate.mask == wanted]
    if exact:
        return _cover(min(exact, key=lambda candidate: candidate.order), wanted, everything)
    good = [candidate for candidate in candidates if _mostly(candidate.mask, wanted)]

    def exceptions_and_words(candidate: _Candidate) -> tuple[Any, ...]:
        return (candidate.mask ^ wanted).bit_count() + candidate.cost, *candidate.order

    return _cover(min(good, key=exceptions_and_words, default=nothing), wanted, everything)


def _cover(found: _Candidate, wanted: int, everything: int) -> Cover:
    covered = (found.mask & wanted).bit_count()
    return Cover(found.traits, covered, found.mask.bit_count(), wanted.bit_count(), everything.bit_count())


def _mostly(mask: int, wanted: int) -> bool:
    covered = (mask & wanted).bit_count()
    return 2 * covered > wanted.bit_count() and 2 * covered > mask.bit_count()


def _masks(cases: Sequence[Settings]) -> dict[str, dict[str, int]]:
    """The cases that have each value of each setting, as bits; ``ANY`` for options with several values."""
    found: dict[str, dict[str, int]] = {}
    for number, settings in enumerate(cases):
        for setting, value in facts_of(settings):
            values = found.setdefault(setting, {})
            values[value] = values.get(value, 0) | 1 << number
    for setting, values in found.items():
        if len(values) > 1 and setting.startswith((_OPTION, _ARGUMENT)):
            values[ANY] = _union(values.values())
    return found


def facts_of(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each setting that a case has, by the name that readers know, with its value as text."""
    for name in _SIMPLE:
        value = settings.get(name, _USUAL.get(name))
        if value not in (None, ""):
            yield name, _text(value)
    yield from ((_OPTIMIZATION, name) for name in settings.get("optimizations", ()))
    for key, setting in (("options", _OPTION), ("call", _ARGUMENT)):
        yield from ((f"{setting} {name}", _text(value)) for name, value in settings.get(key, {}).items())
    if settings.get("sentinel"):
        yield _SENTINEL, settings["sentinel"]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _candidates(masks: Mapping[str, Mapping[str, int]], wanted: int, everything: int) -> Iterator[_Candidate]:
    for setting, values in masks.items():
        for trait, mask in _traits(setting, values, wanted, everything):
            yield _Candidate((trait,), mask)
        for value, first in values.items():
            if not first & wanted or first == everything:
                continue
            for other, more in masks.items():
                if other == setting != _OPTIMIZATION:  # a case has one value of any other setting
                    continue
                for trait, mask in _traits(other, more, wanted, first):
                    both = sorted((Trait(setting, (value,)), trait), key=lambda one: (one.rank, str(one)))
                    yield _Candidate(tuple(both), mask)


def _traits(setting: str, values: Mapping[str, int], wanted: int, among: int) -> Iterator[tuple[Trait, int]]:
    """Each value, and the values together that pay, among some cases; none that describes all of these."""
    within = {value: mask & among for value, mask in values.items() if mask & among & wanted}
    for value, mask in within.items():
        if mask != among:
            yield Trait(setting, (value,)), mask
    within.pop(ANY, None)
    paying = {value: mask for value, mask in within.items() if _gain(mask, wanted) > 1}
    clean = {value: mask for value, mask in within.items() if mask & wanted == mask}
    for chosen in (paying, clean):
        mask = _union(chosen.values())
        few = len(chosen) <= min(MOST_VALUES, (wanted.bit_count() + 1) // 2)
        if len(chosen) > 1 and few and mask != among:
            yield Trait(setting, tuple(sorted(chosen, key=_in_order))), mask


def _gain(mask: int, wanted: int) -> int:
    """How many more cases of the group than others a value describes."""
    return 2 * (mask & wanted).bit_count() - mask.bit_count()


def _union(masks: Iterable[int]) -> int:
    together = 0
    for mask in masks:
        together |= mask
    return together


def _in_order(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _joined(texts: Sequence[str], word: str) -> str:
    *most, last = texts
    return f"{', '.join(most)} {word} {last}" if most else last

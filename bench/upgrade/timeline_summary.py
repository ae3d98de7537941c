"""A timeline in words: a line for each release, and all of it in Markdown."""

from __future__ import annotations

from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.upgrade.timeline_outcome import OTHER_CALLS, WARNS, CaseInRelease, ReleaseFound, TimelineFound


def escaped(text: object) -> str:
    """Text that cannot end a table's cell or become markup."""
    return " ".join(str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def told(release: ReleaseFound) -> str:
    """What became of a release's cases, or why it did not run."""
    if not release.ran:
        return f"{release.status}: {release.reason}"
    more = {kind: sum(kind in case.marks for case in release.cases) for kind in (WARNS, OTHER_CALLS)}
    counts = [f"{count} {verdict}" for verdict, count in release.counts().most_common()]
    return ", ".join([*counts, *(f"{count} with {kind}" for kind, count in more.items() if count)])


def details(case: CaseInRelease) -> str:
    """The sentence of a case, with its UNet calls and new warnings."""
    parts = [case.message]
    if OTHER_CALLS in case.marks:
        parts.append(f"{case.unet_calls} UNet calls instead of {case.unet_calls_before}")
    parts += [f"new warning: {text}" for text in case.new_notices]
    return "; ".join(parts)


def render_timeline(found: TimelineFound) -> str:
    """The summary in Markdown."""
    environment = Environment(loader=PackageLoader("bench.upgrade", "."), undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"cell": escaped, "told": told, "details": details}
    happened = found.happenings()
    grouped = [(release, [case for _, case in cases]) for release, cases in groupby(happened, key=lambda one: one[0])]
    template = environment.get_template("timeline.md.jinja")
    return template.render(found=found, happened=happened, grouped=grouped)

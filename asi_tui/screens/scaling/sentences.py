"""What the curves say, in sentences for somebody who sees them for the first time."""

from __future__ import annotations

from asi_tui import words
from asi_tui.fits import AHEAD, DECISIVE, FEWEST_TO_FIT, HELD_OUT, Fit, Interval
from asi_tui.growth import FEWEST_CONTROLS, SMALLEST_WINDOW, Arm, Growth, wilson
from asi_tui.screens.scaling.charts import Look, View

CANDIDATES = (
    "A candidate has an interval above zero; nothing is corrected for how many were tried, and none was confirmed on "
    "fresh seeds. That would make a claim, and there is none yet."
)
EMPTY = (
    "Nothing to draw yet. As soon as proposals have been trained and scored, this screen shows whether more compute "
    "buys more: how many proposals are better than the baseline for every hour of CPU, how the best score grows, and "
    "how often a child is better than its parent. Beside it stand the controls, whose parents are drawn at random: a "
    "search that does no better than they do has learnt nothing. Curves are fitted to the count, and a sentence says "
    "whether they may be carried beyond the data."
)


def number(value: float) -> str:
    """A quantity in three figures, without an exponent where there is room for none."""
    if abs(value) >= 1000:
        return words.count(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def hours(value: float) -> str:
    """A time of computing: `4.2 h`, or smaller units below one hour."""
    return f"{number(value)} h" if value >= 1 else words.span(value * 3600)


def between(found: Interval) -> str:
    """The interval of a value, in brackets."""
    high = number(found.high) if found.high < 1e9 else "no bound"
    return f"({number(found.low)} to {high})"


def share(found: Interval) -> str:
    """A share with its interval."""
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


def sentences(growth: Growth, view: View, look: Look) -> list[str]:
    """What one of the pictures says; the first sentence is the answer."""
    return {"count": _count, "best": _best, "beats": _beats}[view](growth, look)


# --- the count -------------------------------------------------------------------------------------------------------


def _count(growth: Growth, look: Look) -> list[str]:
    search, controls = growth.search, growth.controls
    total = search.better + controls.better
    spent = search.hours + controls.hours
    said = f"After {hours(spent)} of CPU and {words.plural(len(growth.outcomes), 'proposal')}: "
    said += f"{words.plural(total, 'candidate')} better than the baseline. Candidates, not claims."
    out = [said, *_arms(search, controls, growth.difference), *_fitted(growth.fit(look.clock), look), CANDIDATES]
    return [*out, "The baselines' own training is left out of the compute; what a cache answered costs nothing."]


def _arm(arm: Arm) -> str:
    said = f"{arm.better:,} of {arm.proposals:,}"
    if arm.rate is None:
        return said
    if not arm.better:
        return f"{said} in {hours(arm.hours)}, at most {number(arm.rate.high)} per hour"
    return f"{said} in {hours(arm.hours)}, {number(arm.rate.value)} per hour {between(arm.rate)}"


def _arms(search: Arm, controls: Arm, difference: Interval | None) -> list[str]:
    if not controls.proposals:
        return [f"The search: {_arm(search)}.", "There is no random-parent control yet to compare it with."]
    out = [f"The search: {_arm(search)}. Random-parent controls: {_arm(controls)}."]
    if difference is None:
        why = f"at least {FEWEST_CONTROLS} are needed" if controls.proposals < FEWEST_CONTROLS else "no cost is known"
        return [*out, f"Too few controls for a comparison: {why}."]
    verdict = words.verdict(difference.low, difference.high)
    told = {"better": "the search does better than chance", "worse": "the search does WORSE than chance"}
    said = told.get(verdict, "the search cannot be told from chance")
    gap = f"{words.signed(difference.value)} ({words.signed(difference.low)} to {words.signed(difference.high)})"
    return [*out, f"Difference {gap} per hour: {said}."]


def _fitted(fit: Fit | None, look: Look) -> list[str]:
    if fit is None:
        return [f"No curve is fitted: that takes {FEWEST_TO_FIT} candidates."]
    per = "per hour" if look.clock == "hours" else "per experiment"
    if fit.shape == "saturating" and fit.ceiling is not None and fit.scale is not None:
        scale = hours(fit.scale.value) if look.clock == "hours" else f"{number(fit.scale.value)} experiments"
        said = f"It slows down: towards {number(fit.ceiling.value)} candidates {between(fit.ceiling)} with a time "
        said += f"scale of {scale}; AIC is better by {fit.aic_gain:.1f} than that of a line."
    else:
        said = f"It grows in a line: {number(fit.rate.value)} {per} {between(fit.rate)}. "
        said += f"Nothing shows that it slows down: a bend gains {fit.aic_gain:.1f} of AIC, {DECISIVE:.0f} would tell."
    out = [said]
    if fit.held is not None:
        actual, line, bent = fit.held
        out.append(f"From the first {1 - HELD_OUT:.0%} of it the line foretold {number(line)} more, the saturating "
                   f"curve {number(bent)}; {actual:,} came.")  # fmt: skip
    return [*out, _beyond(fit)]


def _beyond(fit: Fit) -> str:
    if fit.cautions:
        return f"It may NOT be carried beyond the data: {'; '.join(fit.cautions)}."
    _, value, low, high = fit.band[-1]
    told = Interval(value, low, high)
    return f"At {AHEAD:g} times the compute it foretells {number(value)} {between(told)}, if nothing changes."


# --- the best score, and children against parents --------------------------------------------------------------------


def _best(growth: Growth, look: Look) -> list[str]:
    if not growth.best:
        return ["No proposal has been trained on enough seeds for an interval yet."]
    top, reached = growth.best[-1], growth.best[-2]
    spent = growth.counts[-1].hours
    name = next((one.experiment for one in growth.outcomes if one.score == top.value), "")
    scored = growth.search.scored + growth.controls.scored
    unsure = sum(one.score is not None and one.low is None for one in growth.outcomes)
    verdict = {"better": "better than the baseline", "worse": "worse than the baseline"}.get(
        words.verdict(top.low, top.high), "not told apart from the baseline")  # fmt: skip
    out = [f"The best so far is {name}: {words.score(top.value, top.low, top.high)} in units of seed noise, {verdict}."]
    since = spent - reached.hours
    if since > 0:
        out.append(f"It came after {hours(reached.hours)} of {hours(spent)}; since then "
                   f"{top.experiments - reached.experiments:,.0f} proposals brought nothing better.")  # fmt: skip
    if growth.control_best:
        control = growth.control_best[-1]
        out.append(f"The best of the {words.plural(growth.controls.scored, 'scored control')} has "
                   f"{words.score(control.value, control.low, control.high)}; fewer tries find less.")  # fmt: skip
    out.append(f"It is the largest of {scored:,}: the largest of many measurements is too high by chance, and fresh "
               "seeds would most likely bring it down.")  # fmt: skip
    if unsure:
        out.append(f"{words.plural(unsure, 'score')} with too few seeds for an interval left out.")
    return out


def _beats(growth: Growth, look: Look) -> list[str]:
    search, controls = growth.search, growth.controls
    if not search.judged + controls.judged:
        return ["No child has been compared with its parent on shared seeds yet."]
    out = []
    if search.judged:
        out.append(f"Of the search's children {search.beats:,} of {search.judged:,} are better than their parents: "
                   f"{share(search.beat_share)}.")  # fmt: skip
    if controls.judged:
        out.append(f"With a parent drawn at random {controls.beats:,} of {controls.judged:,}: "
                   f"{share(controls.beat_share)}. Random parents are weaker, and easier to beat.")  # fmt: skip
    judged = [one.beats for one in growth.outcomes if one.beats is not None]
    half = len(judged) // 2
    if half >= SMALLEST_WINDOW:
        early, late = (wilson(sum(map(bool, part)), len(part)) for part in (judged[:half], judged[half:]))
        apart = late.low > early.high or late.high < early.low
        word = "more" if late.value > early.value else "less"
        said = f"clearly {word} than before" if apart else "no clear change"
        out.append(f"First half {share(early)}, second half {share(late)}: {said}.")
    out.append("Better means that the paired difference's 95 % interval lies above zero; if nothing helped, 2.5 % "
               "would. Intervals of shares are Wilson's.")  # fmt: skip
    return out

"""What the page says in words: the answer, its grounds, the warnings. Plain text; `page` escapes it."""

from __future__ import annotations

import math

import numpy as np

from proxytrain.analysis.stability import DANGER
from proxytrain.fit import Fit, Prediction
from proxytrain.monitor.text import duration, part_text
from proxytrain.report import ink, stability
from proxytrain.report.about import about, best_of
from proxytrain.report.facts import Facts
from proxytrain.report.standing import BUDGETS, sentence

BREAKS = f"training breaks about {DANGER:,.0f} (2309.14322)"
GRAVE = ("EXTRAPOLATION", "UNSAFE")  # such warnings come before the answer


def loss(facts: Facts, value: float) -> str:
    """A loss in nats a token, and in bits a byte where the text of a token is known."""
    per_byte = facts.asked.corpus.manifest.bytes_per_token
    bits = f" ({value / math.log(2) / per_byte:.4f} bits a byte)" if per_byte else ""
    return f"{value:.4f} nats a token{bits}"


def target(facts: Facts) -> str:
    t = facts.target
    assert t
    return (
        f"A model of width {t.width} and depth {t.depth} ({ink.count(t.params)} parameters, "
        f"{ink.count(t.params_total)} with embedding and readout), trained on {ink.count(t.tokens)} tokens "
        f"with schedule {t.schedule} and base learning rate {t.lr:g}"
    )


def answer(facts: Facts) -> str:
    """The page in one sentence."""
    p, fit = facts.prediction, facts.fit
    if p and fit and facts.target:
        down, up = p.low / p.loss - 1, p.high / p.loss - 1
        laws = sum(w >= 0.005 for w in fit.weights.values())
        law = f"the law {fit.main.bound.law.name}" if laws == 1 else f"an average of {laws} laws"
        return (
            f"{target(facts)}, is predicted to end at a loss of {loss(facts, p.loss)}, with {p.level:.0%} probability "
            f"between {p.low:.4f} and {p.high:.4f} ({signed(down)}, {signed(up)}), by {law} fitted to the final losses "
            f"of {len(facts.used)} runs of at most 1/{p.gap:.3g} of its compute, {_held(fit)}{_curved(p)}; the sweep "
            f"cost {facts.costs.flops_shared / facts.target.flops:.2g} times the target's FLOPs."
        )
    if facts.target:
        why = {"fit": "The runs could not be fitted", "prediction": "The fit does not reach the target"}
        reason = next((why[what] for what, _ in facts.missing if what in why), "There is no prediction")
        return f"No prediction. {reason}. Asked was: {_lower(target(facts))}."
    best = best_of(facts.rows)
    lowest = f", the best of them to a loss of {loss(facts, best.final)}" if best else ""
    return (
        f"{len(facts.done)} of {len(facts.rows)} runs are trained{lowest}. No larger run was named to predict "
        "(sweep.target): what the sweep compares is below."
    )


def _held(fit: Fit) -> str:
    """The backtest in half a sentence."""
    if not fit.backtest:
        return "too few to hold any out for a backtest"
    errors = np.abs([r["error"] for r in fit.backtest])
    inside = sum(r["low"] <= r["loss"] <= r["high"] for r in fit.backtest)
    return (
        f"which in a backtest foretold {len(errors)} held-out runs with a median error of {np.median(errors):.2%} "
        f"({inside} of {len(errors)} inside their intervals)"
    )


def _curved(p: Prediction) -> str:
    """What loss curves add, in half a sentence."""
    part = p.parts.get("loss curves", {})
    return f", and by a law of whole curves fitted to {part['curves']} of the runs" if "loss" in part else ""


def after(facts: Facts) -> str | None:
    """Prediction against truth, where the target was trained."""
    p, came = facts.prediction, facts.came
    lost = [f"it diverged after {t.diverged_at or 0:,} tokens" for t in facts.truths if t.loss is None]
    if not facts.truths:
        return None
    if not came:
        return f"The target has been trained since: {'; '.join(lost)}."
    if len(came) == 1:
        error = next(t.val_se for t in facts.truths if t.loss is not None) or 0.0
        text = f"The target has been trained since: {came[0]:.4f} ± {error:.4f}"
    else:
        each = ", ".join(f"{x:.4f}" for x in came)
        text = f"The target has been trained since, {len(came)} times: {each}, mean {np.mean(came):.4f}"
    text = "; ".join([text, *lost])
    if not p:
        return f"{text}. There was no prediction to hold it against."
    inside = sum(p.low <= x <= p.high for x in came)
    where = ("inside" if inside else "OUTSIDE") if len(came) == 1 else f"{inside} times in {len(came)} inside"
    off = signed(p.loss / float(np.mean(came)) - 1, 2)
    return f"{text}. The prediction was off by {off}; the truth lies {where} the interval."


def grounds(facts: Facts) -> list[tuple[str, str]]:
    """Short facts under the answer: name and text."""
    out = [] if facts.target else about(facts.rows, ranked=facts.standing is not None)
    fit, p = facts.fit, facts.prediction
    if fit:
        out += [("Law", law_words(fit)), ("Backtest", tested(fit))]
    for name, part in p.parts.items() if p else ():
        out.append((f"{name.capitalize()} alone", part_text(part)))
    if p:
        most = max((r["gap"] for r in fit.backtest), default=0.0) if fit else 0.0
        reach = f"; the backtest reached {most:.3g}×" if most else "; nothing was tested by a backtest"
        out.append(("Gap", f"{p.gap:.3g}× the 6 N D of the largest run that was fitted{reach}"))
    if facts.rates and facts.rates.target and facts.target:
        best = facts.rates.target
        inside = best.lr_low <= facts.target.lr <= best.lr_high
        out.append(
            (
                "Learning rate",
                f"{best.lr:.3g} is best for the target by the rates that were tried ({best.lr_low:.3g} to "
                f"{best.lr_high:.3g}); its own {facts.target.lr:g} lies {'inside' if inside else 'OUTSIDE'}",
            )
        )
    for r in facts.standing.rankings if facts.standing else ():
        out.append((f"Places at equal {BUDGETS[r.budget]}", sentence(r)))
    if facts.logits and facts.target:
        value, low, high = facts.logits.predict(facts.target.params)
        out.append(("Largest logit", f"{value:.3g} in the target's attention ({low:.3g} to {high:.3g}); {BREAKS}"))
    if facts.stability:
        out += stability.grounds(facts.stability)
    if facts.collapse:
        out.append(("Collapse", facts.collapse.summary()[0]))
    out.append(("Cost", cost(facts)))
    return out


def law_words(fit: Fit) -> str:
    """The law with its formula, or the laws with their weights."""
    weights = sorted(fit.weights.items(), key=lambda w: -w[1])
    if len(weights) == 1:
        return f"{weights[0][0]}: {fit.main.bound.law.formula}"
    return "average of " + ", ".join(f"{n} ({w:.2f})" for n, w in weights if w >= 0.005)


def tested(fit: Fit) -> str:
    """The backtest in numbers."""
    errors = np.abs([r["error"] for r in fit.backtest])
    if not len(errors):
        return "none possible: too few runs to hold any out"
    inside = sum(r["low"] <= r["loss"] <= r["high"] for r in fit.backtest)
    return (
        f"median error {np.median(errors):.2%}, worst {errors.max():.2%}; {inside} of {len(errors)} held-out runs "
        f"inside their interval, at gaps up to {max(r['gap'] for r in fit.backtest):.3g}×"
    )


def cost(facts: Facts) -> str:
    """The sweep's cost, against the target's where there is one."""
    c = facts.costs
    text = f"sweep {ink.power_of_ten(c.flops_shared)} FLOPs in {ink.count(c.tokens_shared)} tokens"
    saved = 1 - c.tokens_shared / c.tokens_unshared
    if saved > 0.005:
        text += f" ({saved:.0%} saved by shared beginnings)"
    if facts.target:
        ratio = c.flops_shared / facts.target.flops
        text += f", {ratio:.2g}× the target's {ink.power_of_ten(facts.target.flops)} FLOPs"
    if facts.seconds:
        text += f"; measured {duration(facts.seconds)} of one worker"
        if facts.truths and facts.truths[0].seconds:
            text += f", the target {duration(facts.truths[0].seconds)}"
    return text


def warnings(facts: Facts) -> list[str]:
    """What a reader must know before using the number; the gravest first."""
    out = []
    p, fit = facts.prediction, facts.fit
    if p and p.note:
        out.append(p.note)
    outside = sum(not p.low <= x <= p.high for x in facts.came) if p else 0
    if outside:
        times = "" if len(facts.came) == 1 else f" in {outside} of {len(facts.came)} runs"
        out.append(f"The target was trained and its loss lies outside the interval{times}.")
    for what, why in facts.missing:
        if what in ("fit", "prediction"):
            out.append(f"Refused: {why}")
    if facts.logits and facts.target:
        value, low, high = facts.logits.predict(facts.target.params)
        if high >= DANGER:
            what = "are expected to reach" if value >= DANGER else "may reach"
            out.append(
                f"{'UNSAFE: ' if value >= DANGER else ''}The target's attention logits {what} {DANGER:,.0f} "
                f"({value:.3g}, between {low:.3g} and {high:.3g}); {BREAKS}. To avoid it: model.qk_norm=true, a lower "
                "rate, or more warm-up."
            )
    share = np.mean([r["low"] <= r["loss"] <= r["high"] for r in fit.backtest]) if fit and fit.backtest else None
    if p and share is not None and share < p.level - 0.1:
        out.append(
            f"In the backtest {share:.0%} of the intervals held the truth, where {p.level:.0%} should: "
            "this interval may be too narrow."
        )
    out += [f"{w[0].upper()}{w[1:]}." for w in facts.caveats]
    open_runs = [r for r in facts.rows if r.status not in ("done", "diverged")]
    if open_runs:
        rest = "the prediction is preliminary" if p else "what follows is preliminary"
        out.append(f"Unfinished: {len(facts.done)} of {len(facts.rows)} runs are done; {rest}.")
    lost = [r for r in facts.rows if r.status == "diverged"]
    if lost:
        names = ", ".join(f"{r.id[:8]} (width {r.width}, lr {r.lr:g})" for r in lost[:6])
        more = f" and {len(lost) - 6} more" if len(lost) > 6 else ""
        out.append(f"Diverged and left out of the fit: {names}{more}.")
    astray = [r for r in facts.done if r.final >= ink.HIGHEST]
    if astray:
        names = ", ".join(f"{r.id[:8]} (width {r.width}, lr {r.lr:g})" for r in astray[:6])
        out.append(
            f"{len(astray)} runs ended at losses that no language model has, off the scale of the figures: {names}."
        )
    repeated = [r for r in facts.rows if (r.epochs or 0) > 1]
    if repeated:
        out.append(
            f"{len(repeated)} runs read the text more than once; losses of repeated text are not those of fresh text."
        )
    return out


def notes(facts: Facts) -> list[str]:
    """What the fit remarks about itself."""
    fit = facts.fit
    if not fit:
        return []
    out = [w[0].upper() + w[1:] for w in fit.warnings]
    if fit.not_identified:
        names = ", ".join(fit.not_identified)
        out.append(
            f"The runs do not determine every parameter of {fit.main.bound.law.name} ({names}): "
            "rely on the interval, not on the law's constants."
        )
    return out


def signed(share: float, digits: int = 1) -> str:
    """A share as percent with its sign."""
    return f"{share:+.{digits}%}".replace("-", "−")


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]

"""How far beyond the backtest a fit predicts, and the refusal of what lies farther."""

from __future__ import annotations

from proxytrain.errors import Refusal, RequestError

EXTRAPOLATION_LIMIT = 3.0  # predictions reach at most so many times the largest backtested log-gap


def checked_permission(allow: object, key: str = "allow_extrapolation") -> None:
    """Check that `allow_extrapolation` is true or false; the text "false" would count as true.

    Raises
    ------
    RequestError
        It is another value.
    """
    if not isinstance(allow, bool):
        raise RequestError(f"{key}={allow!r}: must be true or false")


def backtest_reached(tested: float) -> str:
    """Return how far the backtest reached in words; `tested` is its largest gap, 1 where there was none."""
    return f"the backtest reached a gap of {tested:.3g}x" if tested > 1 else "nothing could be backtested"


def beyond_backtest(target: str, gap: float, *, beyond: str, tested: float, supported: float, add: str) -> Refusal:
    """Return the refusal of a target that lies beyond what the backtest supports.

    Parameters
    ----------
    target : str
        The target, as ``params=1e9 tokens=2e10``.
    gap, tested, supported : float
        Extrapolation ratios: of the target, the largest of the backtest, and the largest that is predicted.
    beyond : str
        What the ratios are measured from, such as "the runs".
    add : str
        The runs that would make the target predictable.
    """
    return Refusal(
        f"{target} is a gap of {gap:.3g}x beyond {beyond}, but {backtest_reached(tested)}: up to {supported:.3g}x is "
        f"predicted; add {add}, or set allow_extrapolation=true (fit.allow_extrapolation=true on the command line)"
    )

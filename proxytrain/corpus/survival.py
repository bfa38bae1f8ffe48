"""How much of a text survives a tokenizer: bytes that come back when tokens are decoded, and unknown tokens.

Bits per byte are a loss per byte of text that the tokens determine. Text that a normaliser drops or an unknown token
hides is not predicted, so its bytes must not count.
"""

from __future__ import annotations

from collections import Counter

from proxytrain.corpus.tokenizer import Blocks, Tokenizer, units

SAMPLE = 256 << 10  # bytes of shuffled text that are encoded and decoded
ENOUGH = 0.99  # share of surviving bytes below which bits per byte are withheld


def surviving_share(tokenizer: Tokenizer, blocks: Blocks) -> float:
    """Return the share of a sample's bytes that come back when its tokens are decoded, in whatever order.

    A space before the first word may come or go, since it carries nothing.
    """
    total, lost = 0, 0
    for text, _ in blocks:
        for unit in units(text):
            total += len(unit.encode())
            lost += _lost(tokenizer, unit)
            if total >= SAMPLE:
                return 1 - lost / total
    return 1 - lost / total if total else 1.0


def survival_notice(name: str, share: float) -> list[str]:
    """Return what to say of a tokenizer that loses text: nothing where it loses none."""
    if share == 1:
        return []
    lost = f"data.tokenizer={name}: {100 * share:.4g}% of a sample's bytes survive encoding and decoding"
    if share < ENOUGH:
        return [f"{lost}. Bits per byte are withheld, since the lost text is not predicted."]
    return [f"{lost}. Bits per byte count only these."]


def unknown_notice(name: str, token: str, share: float) -> list[str]:
    """Return what to say of unknown tokens: nothing where there are none."""
    if not share:
        return []
    found = f"{100 * share:.3g}% of the training tokens are unknown ({token})"
    return [f"data.tokenizer={name}: {found}. Their text is not learned."]


def _lost(tokenizer: Tokenizer, text: str) -> int:
    """Return how many bytes of a text do not come back."""
    decoded = tokenizer.round_trip(text)
    if decoded in (text, f" {text}") or f" {decoded}" == text:
        return 0
    if tokenizer.unknown:
        decoded = decoded.replace(tokenizer.unknown[0], "")
    return (Counter(text.encode()) - Counter(decoded.encode())).total()

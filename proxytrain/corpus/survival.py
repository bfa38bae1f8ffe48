"""How much of a text survives a tokenizer: bytes that come back when tokens are decoded, and unknown tokens.

Bits per byte are a loss per byte of text that the tokens determine. Text that a normaliser drops or an unknown token
hides is not predicted, so its bytes must not count.
"""

from __future__ import annotations

from proxytrain.corpus.tokenizer import Blocks, Tokenizer, units

SAMPLE = 256 << 10  # bytes of shuffled text that are encoded and decoded
ENOUGH = 0.99  # share of surviving bytes below which bits per byte are withheld


def surviving_share(tokenizer: Tokenizer, blocks: Blocks) -> float:
    """Return the share of a sample's bytes that stand in units, or else lines, which come back unchanged.

    A space before the first word may come or go, since it carries nothing.
    """
    left, total, lost = SAMPLE, 0, 0
    for text, _ in blocks:
        for unit in units(text):
            size = len(unit.encode())
            total, left = total + size, left - size
            if not _comes_back(tokenizer, unit):
                lines = unit.splitlines(keepends=True)
                lost += sum(len(line.encode()) for line in lines if not _comes_back(tokenizer, line))
            if left <= 0:
                return 1 - lost / total
    return 1 - lost / total if total else 1.0


def survival_notice(name: str, share: float) -> list[str]:
    """Return what to say of a tokenizer that loses text: nothing where it loses none."""
    if share == 1:
        return []
    lost = f"data.tokenizer={name}: {share:.2%} of a sample's bytes come back from its tokens"
    if share < ENOUGH:
        return [f"{lost}. Bits per byte are withheld, since the lost text is not predicted."]
    return [f"{lost}. Bits per byte count only these."]


def unknown_notice(name: str, token: str, share: float) -> list[str]:
    """Return what to say of unknown tokens: nothing where there are none."""
    if not share:
        return []
    found = f"{share:.3%} of the training tokens are unknown ({token})"
    return [f"data.tokenizer={name}: {found}. Their text is not learned."]


def _comes_back(tokenizer: Tokenizer, text: str) -> bool:
    decoded = tokenizer.round_trip(text)
    return decoded in (text, f" {text}") or f" {decoded}" == text

"""Weights as views of a flat buffer: what is done for one is done for all members, and all blocks, at once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from proxytrain.model.layout import Weight, aligned


def tensors(flat: Tensor, weights: tuple[Weight, ...]) -> Iterator[Tensor]:
    """The weights as views (K, n, size) of a flat buffer (K, P): those of all n blocks together, the others alone."""
    for view, _ in stacked(flat, weights):
        yield view


def matrices(flat: Tensor, weights: tuple[Weight, ...]) -> Iterator[Tensor]:
    """The matrices inside blocks as views (K, blocks, parts, rows, columns), rows <= columns."""
    for view, w in stacked(flat, weights):
        if w.matrix:
            each = view.unflatten(2, (w.shape[0], w.parts, -1)).transpose(2, 3)
            yield each if each.shape[3] <= each.shape[4] else each.mT


def stacked(flat: Tensor, weights: tuple[Weight, ...]) -> Iterator[tuple[Tensor, Weight]]:
    """Views (K, n, size) of the weights that all n blocks have, and of each that lies outside; with one of them."""
    inside = [w for w in weights if "." in w.name]
    first = [w for w in inside if w.name.startswith("0.")]
    start, stop = first[0].offset, inside[-1].offset + aligned(inside[-1].size)
    blocks = flat[:, start:stop].unflatten(1, (len(inside) // len(first), -1))
    for w in first:
        yield blocks[:, :, w.offset - start : w.offset - start + w.size], w
    for w in weights:
        if "." not in w.name:
            yield flat[:, None, w.offset : w.offset + w.size], w

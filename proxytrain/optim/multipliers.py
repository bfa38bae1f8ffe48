"""The parametrization's table for every weight of a flat buffer."""

from __future__ import annotations

import torch

from proxytrain.config.schema import AdamW, Model, Muon, Parametrization, SGDSaI
from proxytrain.model.layout import Weight, flat_size
from proxytrain.model.parametrization import rule
from proxytrain.optim.muon import ADAM_RMS
from proxytrain.optim.state import Multipliers


def multipliers(
    weights: tuple[Weight, ...],
    model: Model,
    parametrization: Parametrization,
    optimizer: AdamW | SGDSaI,
    device: torch.device | str = "cpu",
) -> Multipliers:
    """What the parametrization's table says of every weight, and Muon's scale of a matrix: .2 sqrt(max(rows, columns)),
    so that its steps are as large as AdamW's and one learning rate serves both (2502.16982). Coupled decay goes with
    the table's rate.
    """
    lr, decay, eps = torch.zeros(3, flat_size(weights)).unbind()
    eps.fill_(1.0)  # of the gaps too, whose step is 0 / eps
    for w in weights:
        size = {"width": model.width, "fan_in": w.shape[0], "depth": model.depth}
        row = rule(w.kind, parametrization, optimizer.name, **size, block="." in w.name)
        at = slice(w.offset, w.offset + w.size)
        lr[at], decay[at], eps[at] = row.lr, row.decay, row.eps
        if optimizer.decay == "coupled":
            decay[at] *= row.lr
        if isinstance(optimizer, Muon):
            lr[at] *= ADAM_RMS * max(w.shape[0], w.shape[1] // w.parts) ** 0.5 if w.matrix else optimizer.adamw_lr
    starts = torch.tensor([w.offset for w in weights])
    each = torch.stack((lr[starts], decay[starts], eps[starts]), 1).double()
    eps = eps[:1] if bool((eps == eps[0]).all()) else eps
    return Multipliers(lr.to(device), decay.to(device), eps.to(device), each)

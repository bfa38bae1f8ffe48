"""AdamW over a pack, against torch's."""

from __future__ import annotations

import pytest
import torch

from proxytrain.config import Optimizer
from proxytrain.optimizer import Multipliers, State, adamw

ADAMW = Optimizer("adamw", 0.9, 0.95, 1e-8, 0.1, 1.0, 0.0)
P = 7


def run(decay: list[float], clip: list[float], lr: list[float], updates: int = 20, by=None, eps=None) -> torch.Tensor:
    K, one = len(lr), torch.ones(P)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(P, generator=generator)
    state = State(start.repeat(K, 1), torch.zeros(K, P), torch.zeros(K, P), torch.zeros(K, 1, dtype=torch.float64))
    for _ in range(updates):
        grad = torch.randn(P, generator=generator).repeat(K, 1)
        adamw(
            state,
            grad,
            ADAMW,
            lr=torch.tensor(lr, dtype=torch.float64)[:, None],
            decay=torch.tensor(decay)[:, None],
            clip=torch.tensor(clip)[:, None],
            by=Multipliers(one if by is None else by, one if by is None else by, one[:1] if eps is None else eps),
        )
    return state.weights


def torch_adamw(lr: float, decay: float, clip: float, updates: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(P, generator=generator))
    optimizer = torch.optim.AdamW([weight], lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay / lr)
    for _ in range(updates):
        weight.grad = torch.randn(P, generator=generator)
        torch.nn.utils.clip_grad_norm_([weight], clip)
        optimizer.step()
    return weight.detach()


def test_it_is_torch_s_adamw_with_a_rate_a_decay_and_a_clip_a_member():
    lr, decay, clip = [1e-2, 1e-3, 3e-2], [0.0, 1e-3, 1e-2], [1.0, float("inf"), 0.1]
    ours = run(decay, clip, lr)
    for k in range(3):
        assert ours[k].tolist() == pytest.approx(torch_adamw(lr[k], decay[k], clip[k]).tolist(), rel=1e-4, abs=1e-6)


def test_multipliers_are_rates_and_decays_of_their_own():
    scaled = run([0.01], [float("inf")], [1e-2], by=torch.tensor([1.0, 0.25, 0.0, 1, 1, 1, 1]))
    whole, quarter = run([0.01], [float("inf")], [1e-2]), run([0.0025], [float("inf")], [2.5e-3])
    assert scaled[0, 0] == whole[0, 0]
    assert scaled[0, 1].item() == pytest.approx(quarter[0, 1].item(), rel=1e-5)
    assert scaled[0, 2] == torch.randn(P, generator=torch.Generator().manual_seed(0))[2]


def test_eps_of_one_weight_is_its_own():
    eps = torch.tensor([1.0, 1e8, 1, 1, 1, 1, 1])
    other, plain = run([0.0], [1.0], [1e-2], updates=1, eps=eps), run([0.0], [1.0], [1e-2], updates=1)
    start = torch.randn(P, generator=torch.Generator().manual_seed(0))
    assert abs(other[0, 1] - start[1]) < 0.6 * abs(plain[0, 1] - start[1])  # sqrt(v) is about as large as this eps
    assert torch.equal(other[0, 2:], plain[0, 2:])


def test_a_diverged_member_leaves_the_others_alone():
    alone = run([0.0], [1.0], [1e-2])
    beside = run([0.0, 0.0], [1.0, 1.0], [1e-2, float("nan")])
    assert torch.equal(alone[0], beside[0])
    assert beside[1].isnan().all()

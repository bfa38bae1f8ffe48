"""The optimizers over a pack, against plain ones of single models, and torch's."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace
from support import train
from torch.utils._python_dispatch import TorchDispatchMode

from proxytrain.config.schema import AdamW, Model, Muon, Parametrization, SGDSaI
from proxytrain.model.gpt import views
from proxytrain.model.layout import ALIGN, Weight, flat_size, layout
from proxytrain.model.parametrization import rule
from proxytrain.optim.multipliers import multipliers
from proxytrain.optim.muon import orthogonal
from proxytrain.optim.state import Multipliers, State
from proxytrain.optim.update import corrections, move, update

ADAMW = AdamW(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0, z_loss=0.0)
P = 7  # weights of one number each
NUMBERS = tuple(Weight(str(i), (1,), "gain", "norm", offset=ALIGN * i) for i in range(P))


def run(decay: list[float], clip: list[float], lr: list[float], updates: int = 20, by=None, eps=None) -> torch.Tensor:
    K, one = len(lr), torch.ones(P)
    generator = torch.Generator().manual_seed(0)
    state = State(*torch.zeros(3, K, ALIGN * P), torch.zeros(K, 1, dtype=torch.float64))
    state.weights[:, ::ALIGN] = torch.randn(P, generator=generator)
    rows = one if by is None else by, one if by is None else by, one if eps is None else eps
    for _ in range(updates):
        grad = torch.randn(P, generator=generator).repeat(K, 1)
        update(
            state,
            grad.split(1, dim=1),
            ADAMW,
            NUMBERS,
            lr=torch.tensor(lr, dtype=torch.float64)[:, None],
            decay=torch.tensor(decay)[:, None],
            clip=torch.tensor(clip)[:, None],
            by=Multipliers(*rows, torch.stack(rows, 1).double()),
        )
    return state.weights[:, ::ALIGN]


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


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_on_a_cpu_one_pass_does_what_passes_one_by_one_do(eps):
    optimizer, by = replace(ADAMW, eps=eps), multipliers(LAYOUT, SHAPE, MUP, ADAMW)
    found = []
    for one_by_one in (False, True):
        state = State(start().repeat(3, 1), torch.zeros(3, SIZE), torch.zeros(3, SIZE), torch.zeros(3, 1).double())
        rates = {n: torch.tensor(values)[:, None] for n, values in RATES.items()}
        rates["lr"] = rates["lr"].double()
        for grad in gradients(5):
            if one_by_one:
                state.updates += 1
                scales = corrections(state.updates, optimizer, rates["lr"])
                move(state, grad.repeat(3, 1), optimizer, LAYOUT, scales, **rates, by=by)
            else:
                update(state, tensors(grad, 3), optimizer, LAYOUT, **rates, by=by)
        found.append(state)
    fused, plain = found
    assert fused.weights.allclose(plain.weights, rtol=1e-5, atol=1e-6)
    assert fused.first.allclose(plain.first, rtol=1e-5, atol=1e-7)
    assert fused.second.allclose(plain.second, rtol=1e-5, atol=1e-8)


def test_each_weight_has_the_multipliers_of_its_part_of_a_row():
    by = multipliers(LAYOUT, SHAPE, MUP, ADAMW)
    assert len(by.each.unique(dim=0)) > 1
    for w, values in zip(LAYOUT, by.each, strict=True):
        for row, value in zip(by[:3], values):
            assert (row.expand(SIZE)[w.offset : w.offset + w.size] == value).all()


def test_a_diverged_member_leaves_the_others_alone():
    alone = run([0.0], [1.0], [1e-2])
    beside = run([0.0, 0.0], [1.0, 1.0], [1e-2, float("nan")])
    assert torch.equal(alone[0], beside[0])
    assert beside[1].isnan().all()


SHAPE = Model(
    width=16,
    depth=3,
    head_size=8,
    context=32,
    mlp="swiglu",
    mlp_ratio=4,
    rope_base=1e4,
    qk_norm=True,
    tied=False,
    logit_bias=True,
    shift_keys=True,
    conv_attention=3,
    conv_mlp=2,
)
LAYOUT = layout(SHAPE, 50)
SIZE = flat_size(LAYOUT)
MUP = Parametrization(name="mup", base_width=8, embedding_std=1.0, readout_std=0.0)
MUON = Muon(
    beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0, z_loss=0.0, momentum=0.95, iterations=5, adamw_lr=0.5
)
SAI = SGDSaI(momentum=0.9, eps=1e-8, weight_decay=0.1, clip=1.0, z_loss=0.0)
RATES = {"lr": [1e-2, 1e-3, 3e-2], "decay": [0.0, 1e-3, 1e-2], "clip": [1.0, float("inf"), 0.1]}


def pieces(row: torch.Tensor) -> dict[str, torch.Tensor]:
    return {w.name: row[w.offset : w.offset + w.size].view(w.shape) for w in LAYOUT}


def tensors(grad: torch.Tensor, members: int) -> list[torch.Tensor]:
    """Of a row of gradients, copies for so many members, one tensor a weight."""
    return list(views(grad.repeat(members, 1), LAYOUT).values())


def gradients(updates: int, seed: int = 1) -> list[torch.Tensor]:
    """Of one model; zero in the gaps, and zero inside blocks at first, as behind a readout that starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for u in range(updates):
        grad = torch.zeros(SIZE)
        for w in LAYOUT:
            if u or "." not in w.name:
                values = torch.randn(w.size, generator=generator) + 0.2 * torch.randn(1, generator=generator)
                grad[w.offset : w.offset + w.size] = values
        found.append(grad)
    return found


def trained(optimizer, updates: int = 4, members=(0, 1, 2)) -> torch.Tensor:
    """Weights (K, P) after updates of members with rates, decays and clips of their own."""
    K = len(members)
    state = State(start().repeat(K, 1), torch.zeros(K, SIZE), torch.zeros(K, SIZE), torch.zeros(K, 1).double())
    lr, decay, clip = (torch.tensor([RATES[n][k] for k in members])[:, None] for n in ("lr", "decay", "clip"))
    by = multipliers(LAYOUT, SHAPE, MUP, optimizer)
    for grad in gradients(updates):
        update(state, tensors(grad, K), optimizer, LAYOUT, lr=lr.double(), decay=decay, clip=clip, by=by)
    return state.weights


def start() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    row = torch.zeros(SIZE)
    for w in LAYOUT:
        row[w.offset : w.offset + w.size] = torch.randn(w.size, generator=generator)
    return row


def clipped(row: torch.Tensor, clip: float) -> dict[str, torch.Tensor]:
    return pieces(row * min(1.0, clip / float(row.norm())))


def inside(w: Weight) -> bool:
    return w.kind in ("hidden", "residual")


def plain_orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz of one matrix, as published."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / max(float(x.norm()), 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def plain_muon(k: int, updates: int) -> dict[str, torch.Tensor]:
    """One model, tensor by tensor: Muon for the matrices, torch's AdamW for the rest."""
    lr, decay, clip = (RATES[n][k] for n in ("lr", "decay", "clip"))
    weights = {n: t.clone() for n, t in pieces(start()).items()}
    rest = {w.name: torch.nn.Parameter(weights[w.name]) for w in LAYOUT if not inside(w)}
    adamw = torch.optim.AdamW(rest.values(), lr=0.5 * lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    momentum = {n: torch.zeros_like(t) for n, t in weights.items()}
    for row in gradients(updates):
        grads = clipped(row, clip)
        for name, leaf in rest.items():
            leaf.grad = grads[name].clone()
        adamw.step()
        for w in LAYOUT:
            if not inside(w):
                continue
            g, m = grads[w.name], momentum[w.name]
            m.mul_(0.95).add_(g, alpha=0.05)
            each = (0.05 * g + 0.95 * m).chunk(w.parts, 1)
            scale = 0.2 * max(each[0].shape) ** 0.5 / 2**0.5  # the width is twice muP's base
            step = torch.cat([plain_orthogonal(x) for x in each], 1) * scale
            weights[w.name] = weights[w.name] * (1 - decay) - lr * step
    return weights | {n: leaf.detach() for n, leaf in rest.items()}


def plain_sai(k: int, updates: int) -> dict[str, torch.Tensor]:
    """One model, tensor by tensor."""
    lr, decay, clip = (RATES[n][k] for n in ("lr", "decay", "clip"))
    weights = {n: t.clone() for n, t in pieces(start()).items()}
    scales: dict[str, float] = {}
    momentum: dict[str, torch.Tensor] = {}
    for row in gradients(updates):
        for name, g in clipped(row, clip).items():
            w = next(w for w in LAYOUT if w.name == name)
            if name not in scales and g.any():
                scales[name] = float(g.norm() / (g.std() + 1e-8))
            momentum[name] = 0.9 * momentum[name] + 0.1 * g if name in momentum else g.clone()
            size = 0.5 if inside(w) else 1.0 if name == "logit_bias" else 2**0.5
            step = scales.get(name, 0.0) * momentum[name] * size
            weights[name] = weights[name] * (1 - (decay if inside(w) else 0.0)) - lr * step
    return weights


@pytest.mark.parametrize(("optimizer", "plain"), [(MUON, plain_muon), (SAI, plain_sai)], ids=["muon", "sgd_sai"])
def test_it_is_that_of_single_models_with_a_rate_a_decay_and_a_clip_a_member(optimizer, plain):
    ours = trained(optimizer)
    for k in range(3):
        want = plain(k, updates=4)
        for name, got in pieces(ours[k]).items():
            moved = (want[name] - pieces(start())[name]).norm()
            assert moved > 0, name
            assert (got - want[name]).norm() < 1e-3 * moved, name
    gaps = torch.ones(SIZE, dtype=torch.bool)
    for w in LAYOUT:
        gaps[w.offset : w.offset + w.size] = False
    assert gaps.any()
    assert not ours[:, gaps].any()


@pytest.mark.parametrize("optimizer", [MUON, SAI], ids=["muon", "sgd_sai"])
def test_a_member_does_not_see_its_neighbours(optimizer):
    together = trained(optimizer)
    for k in range(3):
        assert torch.equal(trained(optimizer, members=(k,))[0], together[k])


def test_muon_s_matrices_move_as_torch_s_do():
    row = {w.name: w for w in LAYOUT}["1.mlp_out"]
    ours = pieces(trained(MUON, members=(0,))[0])[row.name]
    leaf = torch.nn.Parameter(pieces(start())[row.name].clone())
    muon = torch.optim.Muon([leaf], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for grad in gradients(4):
        leaf.grad = clipped(grad, 1.0)[row.name].clone()
        muon.step()
    before = pieces(start())[row.name]
    theirs = (leaf.detach() - before) / 2**0.5  # muP at twice the base width
    assert (ours - before - theirs).norm() < 0.02 * theirs.norm()  # theirs is orthogonalised in bfloat16


def test_newton_schulz_keeps_directions_and_brings_singular_values_near_one():
    x = torch.randn(2, 3, 24, 64, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ orthogonal(x, 5) @ v.mT
    values = inner.diagonal(dim1=2, dim2=3)
    assert ((values > 0.65) & (values < 1.25)).all()
    assert (inner - torch.diag_embed(values)).abs().max() < 1e-3
    assert not orthogonal(torch.zeros(1, 1, 4, 8), 5).any()


def test_a_scale_of_sgd_sai_follows_from_size_mean_and_deviation():
    # g^2 = (d - 1) + d mean^2 / std^2, which is about d for what has no mean (2412.11768)
    state = State(*torch.zeros(3, 1, SIZE), torch.zeros(1, 1).double())
    _, grad = gradients(2)
    by, one = multipliers(LAYOUT, SHAPE, MUP, SAI), torch.ones(1, 1)
    update(state, tensors(grad, 1), SAI, LAYOUT, lr=one.double(), decay=0 * one, clip=one * float("inf"), by=by)
    for w in LAYOUT:
        g, found = (x[w.offset : w.offset + w.size] for x in (grad, state.second[0]))
        assert found.unique().numel() == 1
        assert float(found[0]) ** 2 == pytest.approx(float(w.size - 1 + w.size * (g.mean() / g.std()) ** 2), rel=1e-3)


class Questions(TorchDispatchMode):
    """Counts how often the device is waited for because a value is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, kinds, arguments=(), named=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, SAI], ids=lambda o: o.name)
def test_after_the_first_updates_nothing_is_asked_of_the_device(optimizer):
    state, asked = State(start()[None], *torch.zeros(2, 1, SIZE), torch.zeros(1, 1).double()), []
    by, one = multipliers(LAYOUT, SHAPE, MUP, optimizer), torch.ones(1, 1)
    for grad in gradients(5):
        with Questions() as questions:
            update(state, tensors(grad, 1), optimizer, LAYOUT, lr=one.double(), decay=0 * one, clip=one, by=by)
        asked.append(questions.count)
    assert asked[3:] == [0, 0]
    assert (asked[0] > 0) == (optimizer is SAI)


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, SAI], ids=lambda o: o.name)
def test_coupled_decay_follows_the_rate_of_each_weight(optimizer):
    own = multipliers(LAYOUT, SHAPE, MUP, optimizer)
    coupled = multipliers(LAYOUT, SHAPE, MUP, replace(optimizer, decay="coupled"))
    assert torch.equal(coupled.lr, own.lr)
    rate = {w.name: rule(w.kind, MUP, optimizer.name, width=16, fan_in=w.shape[0], depth=2, block="." in w.name).lr
            for w in LAYOUT}  # fmt: skip
    for w in LAYOUT:
        at = slice(w.offset, w.offset + w.size)
        assert torch.equal(coupled.decay[at], own.decay[at] * rate[w.name])


def test_coupled_decay_is_independent_decay_over_the_peak_rate(ask, tmp_path, corpora):
    final = {}
    for decay, strength in (("independent", 0.01), ("coupled", 0.5)):
        root = tmp_path / decay
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        options = ["lr=.02", f"optimizer.decay={decay}", f"optimizer.weight_decay={strength}"]
        asked = ask("parametrization=sp", "schedule=cosine", "tokens=4096", *options, store=root)
        train(asked)
        final[decay] = asked.store.result(asked.runs[0].id).final_loss
    assert final["coupled"] == pytest.approx(final["independent"], rel=1e-6)

"""The GPT with a model axis: causal, counted right, ln V untrained, and members that do not know of each other."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from msgspec.structs import replace
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from proxytrain.config.schema import Model, Parametrization
from proxytrain.kernels.reference import CausalConv, RMSNorm, SquaredReLU, causal_attention
from proxytrain.model import accounting
from proxytrain.model.gpt import cross_entropy, initial, logits, objective, views
from proxytrain.model.layout import layout
from proxytrain.model.parametrization import KINDS, Scales, rule, scales

V = 64
MODEL = Model(
    width=32,
    depth=2,
    head_size=8,
    context=16,
    mlp="relu2",
    mlp_ratio=4.0,
    rope_base=1e4,
    qk_norm=True,
    tied=False,
    logit_bias=True,
    shift_keys=True,
    conv_attention=3,
    conv_mlp=2,
)
MUP = Parametrization(name="mup", base_width=32, embedding_std=1.0, readout_std=0.0)
SP = Parametrization(name="sp", base_width=32, embedding_std=1.0, readout_std=1.0)
VARIANTS = [
    MODEL,
    replace(MODEL, mlp="swiglu", logit_bias=False),
    replace(MODEL, mlp="gelu", qk_norm=False, shift_keys=False, conv_attention=0, conv_mlp=0),
    replace(MODEL, tied=True, conv_attention=2),
    replace(MODEL, shared_qk=True),
]


def flat(model: Model, seeds: tuple[int, ...] = (0,), parametrization: Parametrization = SP) -> torch.Tensor:
    weights = layout(model, V)
    return torch.stack([initial(weights, model, parametrization, s) for s in seeds])


def out(model: Model, buffer: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return logits(views(buffer, layout(model, V)), ids.expand(len(buffer), *ids.shape), model, Scales(1.0, 1.0))


def text(sequences: int = 3, T: int = 16) -> torch.Tensor:
    return torch.randint(V, (sequences, T), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", VARIANTS)
def test_no_position_sees_a_later_token(model):
    ids, changed = text(), text()
    changed[:, 9] = (changed[:, 9] + 1) % V
    a, b = (out(model, flat(model), x).view(3, 16, V) for x in (ids, changed))
    assert torch.equal(a[:, :9], b[:, :9])
    assert not torch.equal(a[:, 9:], b[:, 9:])


@pytest.mark.parametrize("model", VARIANTS)
def test_no_sequence_sees_another(model):
    ids, changed = text(), text()
    changed[0] = (changed[0] + 1) % V
    a, b = (out(model, flat(model), x).view(3, 16, V) for x in (ids, changed))
    assert torch.equal(a[1:], b[1:])


def test_an_untrained_model_has_the_loss_ln_v():
    ids = text(64)
    loss = cross_entropy(out(MODEL, flat(MODEL, parametrization=MUP), ids), ids.reshape(1, -1))
    assert loss.mean().item() == pytest.approx(math.log(V), rel=1e-6)


@pytest.mark.parametrize("model", VARIANTS)
def test_parameters_are_counted_by_component(model):
    counts = accounting.params(model, V)
    assert counts.total == sum(w.size for w in layout(model, V))
    assert counts.embedding == V * model.width
    assert counts.readout == (0 if model.tied else V * model.width) + V * model.logit_bias


@pytest.mark.parametrize("model", VARIANTS)
def test_flops_are_those_that_torch_counts(model):
    ids = text(2, model.context)
    buffer = flat(model).requires_grad_()
    counter = FlopCounterMode(display=False)
    with counter:
        cross_entropy(out(model, buffer, ids), ids.reshape(1, -1)).sum().backward()
    ops = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in ops.items() if "bmm" in str(op))  # attention has its own kernel, causal by half
    d, T = model.width, model.context
    scores = 6.0 * model.depth * d * (T + 1) * ids.numel()
    assert accounting.flops_per_token(model, V) * ids.numel() - scores == products


@pytest.mark.parametrize("model", VARIANTS)
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_a_readout_in_pieces_has_the_gradients_and_losses_of_the_whole(model, z_loss, monkeypatch):
    ids, targets = text(4), text(4).roll(1, 1)
    found = []
    for most in (10**9, V * 7, 1):  # all 48 positions at once, seven at a time, one at a time
        monkeypatch.setattr("proxytrain.model.gpt.LOGITS", most)
        buffer = flat(model, (0, 1)).add_(0.02).requires_grad_()
        weights, both = views(buffer, layout(model, V)), (x.expand(2, *x.shape) for x in (ids, targets))
        minimised, loss = objective(weights, *both, model, Scales(1.0, 0.5), z_loss)
        minimised.sum().backward()
        found.append((buffer.grad, loss))
    for gradient, loss in found[1:]:
        torch.testing.assert_close(gradient, found[0][0], rtol=1e-4, atol=5e-7)
        torch.testing.assert_close(loss, found[0][1])


def test_an_initial_tensor_depends_on_seed_name_and_shape_only():
    deeper = replace(MODEL, depth=3)
    a = views(flat(MODEL), layout(MODEL, V))
    b = views(flat(deeper), layout(deeper, V))
    assert torch.equal(a["embedding"], b["embedding"])
    assert torch.equal(a["1.qkv"], b["1.qkv"])
    assert not torch.equal(a["0.qkv"], a["1.qkv"])
    assert not torch.equal(flat(MODEL, (0,)), flat(MODEL, (1,)))


@pytest.mark.parametrize("model", VARIANTS)
def test_members_give_the_bits_that_they_give_alone(model):
    ids = text()
    together = out(model, flat(model, (0, 1, 2, 3, 4)), ids)
    for seed in range(5):
        assert torch.equal(together[seed], out(model, flat(model, (seed,)), ids)[0])


def test_token_shift_starts_as_the_plain_mean_of_neighbouring_keys():
    weights = views(flat(MODEL), layout(MODEL, V))
    assert torch.equal(weights["0.shift_keys"], torch.full((1, 32), 0.5))
    assert weights["0.conv_attention"][0, :, 0].tolist() == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize(("uniform", "gains"), [(False, [3.0, 3.0, 3.0]), (True, [3.0, 0.1, 3.0])])
def test_with_shared_queries_and_keys_heads_begin_by_comparing_tokens_or_every_other_one_does(uniform, gains):
    model = replace(MODEL, width=48, head_size=16, shared_qk=True, uniform_heads=uniform)
    weights = views(flat(model), layout(model, V))
    assert weights["1.qk_gain"][0].tolist() == pytest.approx(gains)
    assert torch.equal(weights["1.shift_keys"], torch.ones(1, 48))


def test_with_shared_queries_and_keys_models_learn_to_copy_at_once():
    draw, copied = torch.Generator().manual_seed(0), {}
    for shared in (True, False):
        model = replace(MODEL, head_size=16, context=32, shared_qk=shared)
        buffer = flat(model, parametrization=MUP).requires_grad_()
        optimizer = torch.optim.Adam([buffer], lr=0.004, betas=(0.9, 0.95))
        for _ in range(100):
            ids = torch.randint(V, (64, 32), generator=draw)
            first, second = (torch.randint(6, (64, 1), generator=draw) + start for start in (0, 16))
            string = torch.arange(10)
            ids.scatter_(1, second + string, ids.gather(1, first + string))  # the same string again, anywhere
            loss = cross_entropy(out(model, buffer, ids[:, :-1]), ids[:, 1:].reshape(1, -1)).view(64, 31)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        copied[shared] = loss.gather(1, second + string[1:-1]).mean().item()
    assert copied[True] < 2 < 3 < copied[False]  # ln 64 = 4.2


@pytest.mark.parametrize("name", ["mup", "mup_simple", "completep"])
@pytest.mark.parametrize("kind", KINDS)
def test_at_the_base_size_all_are_the_standard_parametrization(kind, name):
    same = replace(SP, name=name, base_width=64, base_depth=3)
    at = {"width": 64, "fan_in": 64, "depth": 3, "block": kind in ("hidden", "residual")}
    assert rule(kind, same, **at) == rule(kind, SP, **at)


def test_mup_scales_hidden_rates_and_the_readout_by_the_width():
    hidden = rule("hidden", MUP, width=128, fan_in=128, depth=2, block=True)
    assert (hidden.lr, hidden.decay, hidden.std) == (1 / 4, 1.0, pytest.approx(1 / math.sqrt(128)))
    readout = rule("readout", replace(MUP, readout_std=1.0), width=128, fan_in=128, depth=2, block=False)
    assert (readout.multiplier, readout.std, readout.lr) == (1 / 4, pytest.approx(1 / math.sqrt(32)), 1.0)
    assert rule("embedding", MUP, width=128, fan_in=128, depth=2, block=False).lr == 1.0


def test_mup_simple_scales_the_rates_of_matrices_and_nothing_else():
    simple = replace(SP, name="mup_simple")
    for kind in KINDS:
        at = {"width": 128, "fan_in": 128, "depth": 2, "block": kind in ("hidden", "residual")}
        lr = 1 / 4 if kind in ("hidden", "residual", "readout") else 1.0
        assert rule(kind, simple, **at) == dataclasses.replace(rule(kind, SP, **at), lr=lr)


def test_completep_scales_branches_by_depth_and_eps_by_both():
    deep = replace(MODEL, width=128, depth=8)
    complete = Parametrization(name="completep", base_width=32, embedding_std=1.0, readout_std=0.0, base_depth=2)
    assert scales(deep, complete) == Scales(1 / 4, 1 / 4)
    inside = rule("residual", complete, width=128, fan_in=128, depth=8, block=True)
    assert (inside.lr, inside.eps, inside.std) == (1 / 4, 1 / 16, pytest.approx(1 / math.sqrt(128 * 2 * 2)))
    assert rule("gain", complete, width=128, fan_in=1, depth=8, block=False).eps == 1 / 4


def test_a_branch_that_is_scaled_adds_that_much_less():
    weights, ids = views(flat(MODEL), layout(MODEL, V)), text()[None]
    none = {**weights, "0.attention_out": 0 * weights["0.attention_out"], "0.mlp_out": 0 * weights["0.mlp_out"]}
    none |= {"1.attention_out": 0 * weights["1.attention_out"], "1.mlp_out": 0 * weights["1.mlp_out"]}
    assert torch.equal(logits(weights, ids, MODEL, Scales(1.0, 0.0)), logits(none, ids, MODEL, Scales(1.0, 1.0)))


def test_operations_have_the_gradients_of_autograd():
    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.double, requires_grad=True)

    assert gradcheck(RMSNorm.apply, (tensor(2, 12, 5), tensor(2, 5)))
    assert gradcheck(lambda x, taps: CausalConv.apply(x, taps, 4), (tensor(2, 12, 5), tensor(2, 3, 5)))
    assert gradcheck(SquaredReLU.apply, (tensor(2, 3, 4),))


def test_rms_norm_is_torch_s():
    x, gain = torch.randn(2, 6, 8), torch.rand(2, 8)
    assert torch.allclose(RMSNorm.apply(x, gain), torch.nn.functional.rms_norm(x, (8,), eps=1e-6) * gain[:, None])


def test_attention_in_bfloat16_on_a_cpu_is_worked_out_in_float32():
    """torch's own backward in bfloat16 is slow there; results are those of float32, rounded once."""
    q, k, v, slope = (torch.randn(3, 16, 2, 8).bfloat16() for _ in range(4))
    found, exact = [], []
    for into, kind in ((found, torch.bfloat16), (exact, torch.float32)):
        inputs = [x.detach().to(kind).requires_grad_() for x in (q, k, v)]
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            out = causal_attention(*inputs)
        assert out.dtype == kind
        out.backward(slope.to(kind))
        into += [out.detach(), *(x.grad for x in inputs)]
    for ours, theirs in zip(found, exact):
        assert torch.equal(ours, theirs.bfloat16())

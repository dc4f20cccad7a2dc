from __future__ import annotations

import pytest
import torch

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.loop.averaging import average_of, optimizer_of, set_rate
from motorvae.training.model import MotorVAE, sample_latent, vae_loss
from motorvae.training.options import Optimizer

CPU = torch.device("cpu")


def _steps(model: MotorVAE, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    generator, losses = torch.Generator().manual_seed(0), []
    images = torch.rand((8, *model.spec.input_shape), generator=generator)
    for _ in range(count):
        mu, log_var = model.encode(images)
        z = sample_latent(mu, log_var, generator)
        loss = vae_loss(images, model.decode(z), mu, log_var, beta=0.05)
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
        losses.append(loss.total.item())
    return losses


def _model(spec: ModelSpec, layout: torch.memory_format = torch.contiguous_format) -> MotorVAE:
    torch.manual_seed(0)
    return MotorVAE(spec).to(memory_format=layout)  # type: ignore[call-overload,no-any-return]  # torch's stub lacks it


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fused_adam_learns_what_the_plain_one_does(
    spec: ModelSpec, layout: torch.memory_format
) -> None:
    model = _model(spec, layout)
    ours = optimizer_of(model, CPU)
    assert ours.defaults["fused"]
    set_rate(ours, 1e-3)
    plain = _model(spec, layout)
    expected = _steps(plain, torch.optim.Adam(plain.parameters(), lr=1e-3, fused=False), 20)
    assert _steps(model, ours, 20) == pytest.approx(expected, rel=1e-3)
    # Not the biases before batch norm, whose gradients are rounding errors of zero.
    weights = model.decoder.image.weight, plain.decoder.image.weight
    torch.testing.assert_close(*weights, rtol=0, atol=1e-3)  # twenty steps of 1e-3 moved them


def test_the_heads_alone_have_a_rate_of_their_own(spec: ModelSpec) -> None:
    model = _model(spec)
    optimizer = optimizer_of(model, CPU, heads_rate=0.25)
    for rate in (1e-3, 2e-3):  # relative to whatever the schedule says
        set_rate(optimizer, rate)
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        found = {name: rates[id(weight)] / rate for name, weight in model.named_parameters()}
        heads = {
            f"encoder.{head}.{part}" for head in ("mu", "log_var") for part in ("weight", "bias")
        }
        assert {name for name, relative in found.items() if relative == 0.25} == heads
        assert {relative for name, relative in found.items() if name not in heads} == {1}


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_inner_weights_alone_decay_by_rate_times_decay(spec: ModelSpec, name: Optimizer) -> None:
    """With and without decay, one step from the same weights and gradients differs by just that."""
    rate, decay = 0.01, 0.5
    plain, decayed = _model(spec), _model(spec)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    for model, amount in ((plain, 0.0), (decayed, decay)):
        optimizer = optimizer_of(model, CPU, name=name, weight_decay=amount)
        set_rate(optimizer, rate)
        _steps(model, optimizer, 1)
    at_image = {"encoder.features.0.weight", "decoder.image.weight"}
    layers = {key for key, value in before.items() if value.ndim > 1}
    inner = layers - at_image
    assert len(inner) == len(layers) - 2
    for key, weight in decayed.named_parameters():
        expected = plain.get_parameter(key).detach()
        if key in inner:
            expected = expected - rate * decay * before[key]
            assert not torch.equal(weight, plain.get_parameter(key)), key
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=1e-7)


def _give_gradients(model: MotorVAE, step: int) -> None:
    """The same for models of one shape: what a backward pass rounds would not be under test."""
    generator = torch.Generator().manual_seed(step)
    for one in model.parameters():
        one.grad = torch.randn(one.shape, generator=generator)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("heads_rate", [1.0, 0.25])
def test_decay_is_that_of_adamw_at_each_steps_rate(
    spec: ModelSpec, heads_rate: float, fused: bool
) -> None:
    """torch's AdamW with groups made by hand; the rate moves, and decay has to move with it."""
    decay, rates = 2.0, (0.01, 0.02, 0.1, 0.0, 0.001)
    ours, theirs = _model(spec), _model(spec)
    for model in (ours, theirs):
        with torch.no_grad():  # batch norm begins with biases of 0, which no decay would move
            for one in model.parameters():
                one.add_(0.5)
    precision = "32-true" if fused else "16-mixed"
    optimizer = optimizer_of(
        ours, CPU, heads_rate=heads_rate, weight_decay=decay, precision=precision
    )
    groups = []
    for name, one in theirs.named_parameters():
        is_head = ".mu." in name or ".log_var." in name
        is_end = name in {"encoder.features.0.weight", "decoder.image.weight"}
        groups.append(
            {
                "params": [one],
                "weight_decay": 0.0 if one.ndim == 1 or is_end else decay,
                "relative": heads_rate if is_head else 1.0,
            }
        )
    adamw = torch.optim.AdamW(groups)
    for step, rate in enumerate(rates):
        set_rate(optimizer, rate)
        for group in adamw.param_groups:
            group["lr"] = rate * group["relative"]
        for model, one in ((ours, optimizer), (theirs, adamw)):
            _give_gradients(model, step)
            one.step()
    for name, weight in ours.named_parameters():
        wanted = theirs.get_parameter(name)
        torch.testing.assert_close(weight, wanted, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_is_the_recursion_it_says(spec: ModelSpec, decay: float) -> None:
    model = _model(spec)
    average = average_of(model, decay)
    optimizer = optimizer_of(model, CPU)
    set_rate(optimizer, 1e-2)
    expected: dict[str, torch.Tensor] = {}
    for step in range(30):
        _steps(model, optimizer, 1)
        average.update_parameters(model)
        share = min(decay, (1 + step) / (10 + step)) if step else 0.0
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                before = expected.get(name, torch.zeros_like(value, dtype=torch.float64))
                expected[name] = share * before + (1 - share) * value.double()
    found = average.module.state_dict()
    assert any("running_var" in name for name in expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-5)
        moved = (found[name] - model.state_dict()[name]).abs().max()
        assert moved > 0, name
    assert not any(weight.requires_grad for weight in average.parameters())
    assert average.module.state_dict()["encoder.features.1.num_batches_tracked"] == 30

"""The networks of the paper's table 3."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ecgwatch.beats import bedside_parts
from training.export import check_parity, to_onnx
from training.models import (
    BedsideVAE,
    BetaVAE,
    Serving,
    bedside_model,
    cifar_model,
    image_model,
    make,
    norb_model,
    segment_model,
    unit_latents,
    with_made_up_ectopics,
)
from training.networks import TCN
from training.parameters import MOST_DRAWN, defaults

torch.set_num_threads(1)


def _pair() -> tuple[BetaVAE, BetaVAE]:
    torch.manual_seed(1)
    aligned, plain = segment_model(aligned=True).eval(), segment_model(aligned=False).eval()
    plain.load_state_dict(aligned.state_dict())
    return aligned, plain


def test_the_stride_aligned_encoder_gives_what_the_plain_one_gives() -> None:
    aligned, plain = _pair()
    x = torch.rand(5, 187)
    with torch.no_grad():
        torch.testing.assert_close(aligned.encode(x), plain.encode(x), rtol=0, atol=1e-6)


def test_both_encoders_have_the_same_gradient() -> None:
    aligned, plain = _pair()
    x = torch.rand(4, 187)
    for model in (aligned, plain):
        model.encode(x)[0].square().sum().backward()
    for (name, one), other in zip(aligned.encoder.named_parameters(), plain.encoder.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_last_step_sees_the_whole_segment() -> None:
    _, plain = _pair()
    x = torch.rand(1, 187, requires_grad=True)
    plain.encode(x)[0].sum().backward()
    assert x.grad is not None
    assert (x.grad[0, [0, 1, 93, 185, 186]] != 0).all()


def test_a_block_is_causal() -> None:
    block = TCN().blocks[1].eval()
    x = torch.rand(1, 64, 40)
    changed = x.clone()
    changed[..., 25:] = 0
    before, after = block(x, dilation=2)[0], block(changed, dilation=2)[0]
    torch.testing.assert_close(before[..., :25], after[..., :25])
    assert not torch.equal(before[..., 25:], after[..., 25:])


def test_the_served_nse_is_equation_3_of_the_reconstruction_through_the_mean() -> None:
    model, _ = _pair()
    x = torch.rand(3, 187)
    with torch.no_grad():
        mean, nse = Serving(model)(x)
        error = torch.linalg.norm(x - model.decoder(mean), dim=1) ** 2 / torch.linalg.norm(x, dim=1) ** 2
    torch.testing.assert_close(nse, error)


SEGMENTS = {name: partial(segment_model, encoder=name) for name in ("tcn", "cnn", "lstm")}
IMAGES = {"mnist": image_model, "cifar-10": cifar_model, "small-norb": norb_model}
LENGTHS = {"mnist": 784, "cifar-10": 3072, "small-norb": 1024}
EVERY = [pytest.param(make, LENGTHS.get(name, 187), id=name) for name, make in {**SEGMENTS, **IMAGES}.items()]


@pytest.mark.parametrize(("make", "length"), EVERY)
def test_unit_latents_change_the_units_of_the_latents_and_no_reconstruction(
    make: Callable[..., BetaVAE], length: int
) -> None:
    torch.manual_seed(2)
    model, x = make(latent=4).eval(), torch.rand(50, length)
    with torch.no_grad():
        model.mean.weight.mul_(torch.tensor([[0.1], [1.0], [3.0], [0.01]]))  # a dimension nearly unused, and others
        mean, nse = Serving(model)(x)
        torch.manual_seed(3)
        sampled = model(x)[0]
        unit_latents(model, x)
        torch.testing.assert_close(model.encode(x)[0].std(dim=0), torch.ones(4), rtol=0, atol=1e-3)
        torch.testing.assert_close(Serving(model)(x)[1], nse)
        torch.manual_seed(3)
        torch.testing.assert_close(model(x)[0], sampled)
    assert not torch.allclose(mean.std(dim=0), torch.ones(4), atol=0.1)


def test_the_model_of_images_has_the_layers_of_table_3() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in image_model().named_parameters() if "weight" in name}
    assert list(shapes.items()) == [
        ("encoder.convolve.0.weight", (32, 1, 3, 3)),
        ("encoder.convolve.2.weight", (32, 32, 3, 3)),
        ("encoder.dense.0.weight", (128, 1568)),
        ("encoder.dense.2.weight", (128, 128)),
        ("mean.weight", (10, 128)),
        ("log_variance.weight", (10, 128)),
        ("decoder.dense.0.weight", (128, 10)),
        ("decoder.dense.2.weight", (1568, 128)),
        ("decoder.deconvolve.0.weight", (32, 32, 3, 3)),
        ("decoder.deconvolve.2.weight", (32, 1, 3, 3)),
    ]


@pytest.mark.parametrize("dataset", ["mnist", "cifar-10", "small-norb"])
def test_weights_of_image_models_begin_as_keras_has_them(dataset: str) -> None:
    parameters = defaults(dataset)
    torch.manual_seed(4)
    model = make(parameters, 784)  # the length is that of segments alone
    for name, weight in model.named_parameters():
        if name.endswith("weight") and weight.dim() > 1:
            taps = weight[0, 0].numel()
            limit = (6 / ((weight.shape[0] + weight.shape[1]) * taps)) ** 0.5  # Glorot & Bengio 2010, eq. 16
            assert 0.9 * limit < weight.abs().max() <= limit
    others = make(replace(parameters, initial="torch"), 784)
    assert not model.mean.bias.any() and others.mean.bias.any()


def test_the_models_of_cifar_and_small_norb_have_the_layers_of_table_3() -> None:
    found = {}
    for name in ("cifar-10", "small-norb"):
        weights = {key: tuple(one.shape) for key, one in IMAGES[name]().named_parameters() if "weight" in key}
        found[name] = {key: shape for key, shape in weights.items() if len(shape) > 1}  # but batch normalisation's
    heads = [(10, 256), (10, 256), (256, 10), (256, 256), (2048, 256)]
    assert list(found["cifar-10"].values()) == [
        *[(64, 3, 3, 3), (128, 64, 5, 5), (128, 128, 5, 5), (256, 2048), (256, 256)],
        *[*heads, (128, 128, 5, 5), (128, 64, 5, 5), (64, 3, 3, 3)],
    ]
    assert list(found["small-norb"].values()) == [
        *[(32, 1, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 2048), (256, 256)],
        *[*heads, (128, 128, 5, 5), (128, 64, 5, 5), (64, 1, 3, 3)],
    ]
    between = {
        name: sum(isinstance(one, nn.BatchNorm2d) for one in make().decoder.modules()) for name, make in IMAGES.items()
    }
    assert between == {"mnist": 0, "cifar-10": 2, "small-norb": 0}


def test_the_model_of_colours_sees_planes() -> None:
    model, x = cifar_model().eval(), torch.rand(1, 3072)
    with torch.no_grad():
        before = model.encode(x)[0]
        for plane in range(3):
            changed = x.clone()
            changed[0, 1024 * plane : 1024 * (plane + 1)] = 0
            assert not torch.allclose(model.encode(changed)[0], before, atol=1e-5), plane


@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_the_other_encoders_have_as_many_parameters_as_the_tcn_within_a_tenth(name: str) -> None:
    sizes = {one: sum(p.numel() for p in SEGMENTS[one]().encoder.parameters()) for one in ("tcn", name)}
    assert sizes[name] == pytest.approx(sizes["tcn"], rel=0.1)


@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_the_other_encoders_see_the_whole_segment(name: str) -> None:
    torch.manual_seed(4)
    x = torch.rand(1, 187, requires_grad=True)
    SEGMENTS[name]().eval().encode(x)[0].sum().backward()
    assert x.grad is not None
    assert (x.grad[0, [0, 1, 93, 185, 186]] != 0).all()


@pytest.mark.parametrize(("make", "length"), EVERY)
def test_what_comes_back_has_the_length_of_what_was_given(make: Callable[..., BetaVAE], length: int) -> None:
    model, x = make().eval(), torch.rand(3, length)
    assert model(x)[0].shape == x.shape


def test_the_lstm_remembers_a_qrs_to_the_end_of_the_segment_before_it_has_learned_anything() -> None:
    torch.manual_seed(0)
    x = torch.rand(20, 187, requires_grad=True)
    segment_model(encoder="lstm").eval().encode(x)[0].sum().backward()
    assert x.grad is not None
    felt = x.grad.abs().mean(dim=0)
    assert felt[70:90].mean() > 0.01 * felt[-20:].mean()  # with torch's own biases 5e-19


@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_the_exported_graph_of_the_other_encoders_says_what_they_say(name: str) -> None:
    torch.manual_seed(5)
    model = SEGMENTS[name]().eval()
    x = np.random.default_rng(5).random((7, 187), np.float32)
    assert check_parity(model, to_onnx(model, 187), x) < 1e-4


@pytest.mark.parametrize(("make", "length"), EVERY)
def test_the_parts_of_a_model_have_the_names_that_checkpoints_use(make: Callable[..., BetaVAE], length: int) -> None:
    assert [name for name, _ in make().named_children()] == ["encoder", "mean", "log_variance", "decoder"]


def bedside_inputs(count: int = 5) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(count, 190)


def test_a_bedside_reconstruction_is_the_typical_beat_and_what_is_decoded() -> None:
    model, x = bedside_model().eval(), bedside_inputs()
    assert isinstance(model, BedsideVAE)
    with torch.no_grad():
        z = model.encode(x)[0]
        y, decoded = model.decode(z, x), model.decoder(z)
    beat, typical, rr = bedside_parts(y)
    torch.testing.assert_close(beat, bedside_parts(x)[1] + decoded[:, :94])
    torch.testing.assert_close(typical, bedside_parts(x)[1])
    torch.testing.assert_close(rr, decoded[:, 94:])


def test_a_beat_equal_to_its_typical_beat_has_no_error_but_what_is_decoded() -> None:
    model, x = bedside_model().eval(), bedside_inputs()
    x[:, :94] = x[:, 94:188]
    with torch.no_grad():
        mean, nse = Serving(model)(x)
        decoded = model.decoder(mean)
        error = decoded[:, :94].square().sum(dim=1) + (x[:, 188:] - decoded[:, 94:]).square().sum(dim=1)
    torch.testing.assert_close(nse, error / x[:, :188].square().sum(dim=1))


def test_nse_grows_with_the_deviation_and_is_not_divided_by_it() -> None:
    model, x = bedside_model().eval(), bedside_inputs()
    torch.nn.init.zeros_(model.decoder.dense[-1].weight)
    torch.nn.init.zeros_(model.decoder.dense[-1].bias)  # draws nothing
    deviation = torch.randn(94)
    nse = []
    for times in (1, 2, 10):
        x[:, :94], x[:, 188:] = x[:, 94:188] + times * deviation, 0
        with torch.no_grad():
            nse.append(Serving(model)(x)[1])
    torch.testing.assert_close(nse[0], deviation.square().sum() / (2 * x[:, 94:188].square().sum(dim=1)))
    torch.testing.assert_close(nse[1], 4 * nse[0])
    torch.testing.assert_close(nse[2], 100 * nse[0])


def test_no_more_is_drawn_of_a_deviation_than_a_normal_beat_has() -> None:
    model, x = bedside_model().eval(), bedside_inputs()
    with torch.no_grad():
        mean = model.encode(x)[0]
        torch.testing.assert_close(model.draw(mean, x), model.decode(mean, x))
        model.decoder.dense[-1].weight.mul_(1000)
        drawn, decoded = (one(mean, x) for one in (model.draw, model.decode))
    typical = torch.cat([x[:, 94:188], x[:, 94:188], torch.zeros(len(x), 2)], dim=1)
    room = MOST_DRAWN * x[:, 94:188].square().sum(dim=1)
    torch.testing.assert_close((drawn - typical).square().sum(dim=1), room)
    similar = torch.cosine_similarity(drawn - typical, decoded - typical)
    torch.testing.assert_close(similar, torch.ones(len(x)))


def test_made_up_ectopics_change_a_share_of_the_beats_and_nothing_else_of_them() -> None:
    x = bedside_inputs(2000)
    seen = with_made_up_ectopics(x, 0.25, 125.0)
    assert torch.equal(seen[:, 94:188], x[:, 94:188]) and torch.equal(seen[:, 189], x[:, 189])
    changed = (seen[:, :94] != x[:, :94]).any(dim=1)
    assert (seen[changed, 188] < x[changed, 188]).all() and torch.equal(seen[~changed], x[~changed])
    assert abs(changed.float().mean() - 0.25) < 0.04
    added = (seen - x)[changed, :94]
    assert 0.1 < added.abs().amax(dim=1).median() < 0.8
    assert added.abs().max() <= 1.6


def test_a_denoising_model_draws_the_beat_and_not_what_the_encoder_saw() -> None:
    model, x = bedside_model().eval(), bedside_inputs()
    torch.manual_seed(3)
    y, mean, _ = model(x, seen := with_made_up_ectopics(x, 1.0, 125.0))
    torch.testing.assert_close(mean, model.encode(seen)[0])
    torch.testing.assert_close(bedside_parts(y)[1], bedside_parts(x)[1])


def test_the_bedside_encoder_sees_deviation_typical_beat_rr_and_pauses() -> None:
    model, x = bedside_model().eval(), bedside_inputs(1)
    with torch.no_grad():
        before = model.encode(x)[0]
        for column in (50, 140, 188, 189):
            changed = x.clone()
            changed[0, column] += 3
            assert not torch.allclose(model.encode(changed)[0], before, atol=1e-5), column


def two_lead_inputs(count: int = 5) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(count, 4 * 94 + 2)


def test_an_encoder_of_two_leads_sees_both_and_tells_them_apart() -> None:
    model, x = bedside_model(378, leads=2).eval(), two_lead_inputs(1)
    swapped = torch.cat([x[:, 94:188], x[:, :94], x[:, 282:376], x[:, 188:282], x[:, 376:]], dim=1)
    changed = [swapped]
    for column in (50, 140, 230, 330, 376, 377):  # beat and typical beat of both, RR ratio, pauses
        changed.append(x.clone())
        changed[-1][0, column] += 3
    with torch.no_grad():
        before = model.encode(x)[0]
        for one in changed:
            assert not torch.allclose(model.encode(one)[0], before, atol=1e-5)
        y = model(x)[0]
    assert y.shape == x.shape
    torch.testing.assert_close(bedside_parts(y)[1], bedside_parts(x)[1])


def test_made_up_ectopic_waves_come_at_the_same_time_in_both_leads_at_other_heights() -> None:
    x = two_lead_inputs(500)
    added = with_made_up_ectopics(x, 1.0, 125.0, leads=2) - x
    first, second = added[:, :94], added[:, 94:188]
    assert not torch.allclose(first, second, atol=0.05)
    reached = first.abs().amax(dim=1) > 0.1
    away = (first[reached].abs() < 1e-3) & (second[reached].abs() > 0.5)
    assert away.float().mean() < 0.02  # seldom a high wave in one lead where the other has none
    assert (added[:, 188:376] == 0).all() and (added[:, 376] < 0).all()

"""What U-ViT, DiT and UNet owe their callers alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kilonova.core.errors import ConfigError
from kilonova.models.components import build_component
from kilonova.models.condition import Condition, ControlType
from kilonova.models.dit.config import DiTConfig
from kilonova.models.unet.config import UNetConfig
from kilonova.models.uvit.config import UViTConfig

TRANSFORMER = {"in_channels": 4, "hidden_size": 32, "num_attention_heads": 2, "text_hidden_size": 16}
CONFIGS = {
    "uvit": UViTConfig(**TRANSFORMER, num_hidden_layers=3, step_size_embeds=True),
    "dit": DiTConfig(**TRANSFORMER, num_hidden_layers=2, step_size_embeds=True),
    "unet": UNetConfig(
        in_channels=4,
        block_out_channels=(8, 16, 32),
        transformer_depth=(0, 1, 2),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        text_hidden_size=16,
        step_size_embeds=True,
    ),
}
BATCH, HEIGHT, WIDTH, LENGTH = 3, 6, 10, 5


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    """A backbone with every parameter random, so that nothing is hidden by a layer of zeros."""
    model = build_component(CONFIGS[request.param])
    model.init_weights(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def inputs():
    latents = randn(BATCH, 4, HEIGHT, WIDTH)
    timestep = torch.tensor([0.1, 0.5, 1.0])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    return latents, timestep, randn(BATCH, LENGTH, 16), mask


def condition():
    return Condition(
        masked_latents=randn(BATCH, 4, HEIGHT, WIDTH, seed=1),
        mask=(randn(BATCH, 1, HEIGHT, WIDTH) > 0).float(),
        control=randn(BATCH, 4, HEIGHT, WIDTH, seed=2),
        control_type=torch.tensor([ControlType.CANNY_EDGE, ControlType.SEGMENTATION, ControlType.CANNY_EDGE]),
        control_strength=torch.tensor([1.0, 0.5, 0.25]),
        palette=50 * randn(BATCH, 2, 3),
        palette_mask=torch.ones(BATCH, 2, dtype=torch.bool),
        references=randn(BATCH, 2, 4, 4, 8),
        references_mask=torch.ones(BATCH, 2, dtype=torch.bool),
        similarity=torch.tensor([0.9, 0.5, 0.2]),
    )


PARTS = {
    "inpainting": ("masked_latents", "mask"),
    "control": ("control", "control_type", "control_strength"),
    "palette": ("palette", "palette_mask"),
    "references": ("references", "references_mask", "similarity"),
}


def part(name, **changes):
    whole = condition()
    return Condition(**{**{field: getattr(whole, field) for field in PARTS[name]}, **changes})


DROPPED = {
    "inpainting": part("inpainting", mask=torch.ones(BATCH, 1, HEIGHT, WIDTH)),
    "control of strength 0": part("control", control_strength=torch.zeros(BATCH)),
    "control of no type": part("control", control_type=torch.zeros(BATCH, dtype=torch.long)),
    "palette": part("palette", palette_mask=torch.zeros(BATCH, 2, dtype=torch.bool)),
    "references": part("references", references_mask=torch.zeros(BATCH, 2, dtype=torch.bool)),
    "references of similarity 0": part("references", similarity=torch.zeros(BATCH)),
}


def close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def apart(left, right):
    return (left - right).abs().amax((1, 2, 3)).min() > 1e-3


def test_the_answer_has_the_shape_of_the_latents(model, inputs):
    assert model(*inputs, condition()).shape == inputs[0].shape


def test_fresh_weights_answer_with_zeros(model, inputs):
    model.init_weights(torch.Generator().manual_seed(0))
    assert not model(*inputs, condition()).any()


def test_it_heeds_latents_time_step_size_and_text(model, inputs):
    latents, timestep, states, mask = inputs
    before = model(*inputs)
    assert apart(model(latents + 0.1, timestep, states, mask), before)
    assert apart(model(latents, timestep * 0.9, states, mask), before)
    assert apart(model(latents, timestep, -states, mask), before)
    assert apart(model(*inputs, step_size=torch.full((BATCH,), 0.25)), before)
    close(model(*inputs, step_size=torch.zeros(BATCH)), before)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_it_heeds_every_part_of_a_condition(model, inputs, name):
    assert apart(model(*inputs, part(name)), model(*inputs))


def test_padding_changes_nothing(model, inputs):
    latents, timestep, states, mask = inputs
    before = model(*inputs)
    close(model(latents, timestep, states.masked_fill(~mask[..., None], 7.0), mask), before)
    close(model(latents[1:2], timestep[1:2], states[1:2, :3], mask[1:2, :3]), before[1:2])
    close(model(latents[1:2], timestep[1:2], states[1:2, :3], None), before[1:2])


def test_no_text_is_a_mask_without_a_token(model, inputs):
    latents, timestep, states, mask = inputs
    dropped = model(latents, timestep, states, torch.zeros_like(mask))
    assert torch.isfinite(dropped).all()
    close(model(latents, timestep, states[:, :0], mask[:, :0]), dropped)
    assert apart(model(*inputs), dropped)


@pytest.mark.parametrize("name", sorted(DROPPED))
def test_a_dropped_part_changes_nothing(model, inputs, name):
    close(model(*inputs, DROPPED[name]), model(*inputs))


def test_samples_of_a_batch_do_not_touch_each_other(model, inputs):
    whole = model(*inputs, condition())
    for index in range(BATCH):
        one = slice(index, index + 1)
        alone = model(*(each[one] for each in inputs), condition().map(lambda tensor, one=one: tensor[one]))
        close(alone, whole[one])


def test_what_is_not_kept_of_masked_latents_does_not_count(model, inputs):
    whole = part("inpainting")
    changed = replace(whole, masked_latents=whole.masked_latents + 5 * whole.mask)
    close(model(*inputs, changed), model(*inputs, whole))


def test_a_control_weighs_less_the_weaker_it_is(model, inputs):
    without = model(*inputs)

    def effect(strength):
        weak = part("control", control_strength=torch.full((BATCH,), strength))
        return (model(*inputs, weak) - without).square().mean()

    effects = [effect(strength) for strength in (1e-6, 0.05, 0.3, 1.0)]
    assert effects == sorted(effects)
    assert effects[0] < 1e-5 * effects[-1]


def test_the_order_of_references_does_not_matter(model, inputs):
    whole = part("references")
    close(model(*inputs, replace(whole, references=whole.references.flip(1))), model(*inputs, whole))


def test_gradients_reach_every_parameter(model, inputs):
    model(*inputs, condition(), step_size=torch.full((BATCH,), 0.5)).square().sum().backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_it_runs_in_bfloat16_and_under_autocast(model, inputs):
    expected = model(*inputs, condition())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(*inputs, condition())
    latents, timestep, states, mask = inputs
    low = model.bfloat16()(latents.bfloat16(), timestep, states.bfloat16(), mask, condition().to(dtype=torch.bfloat16))
    assert low.dtype == torch.bfloat16
    for answer in (mixed, low):
        assert (answer.float() - expected).square().mean() < 0.01 * expected.square().mean()


def test_uvit_compiles_to_one_graph(inputs):
    model = build_component(replace(CONFIGS["uvit"], num_hidden_layers=1))
    model.init_weights(torch.Generator().manual_seed(0))
    torch.nn.init.ones_(model.proj_out.weight)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    close(compiled(*inputs, condition()), model(*inputs, condition()))


def test_wrong_latents_and_a_step_size_in_vain_are_refused(model, inputs):
    latents, *rest = inputs
    with pytest.raises(ConfigError, match="latents: 3 channels"):
        model(latents[:, :3], *rest)
    with pytest.raises(ConfigError, match="latents: 5 x 10"):
        model(latents[:, :, :5], *rest)
    plain = build_component(replace(model.config, step_size_embeds=False))
    with pytest.raises(ConfigError, match="step_size"):
        plain(*inputs, step_size=torch.zeros(BATCH))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_configurations_come_back_and_unknown_keys_are_refused(config):
    written = config.to_dict()
    assert type(config).from_dict({"_class_name": "x", **written}) == config
    with pytest.raises(ConfigError, match="did you mean 'patch_size'"):
        type(config).from_dict({**written, "patch_sise": 2})
    with pytest.raises(ConfigError, match="prediction"):
        type(config).from_dict({**written, "prediction": "epsilon"})
    with pytest.raises(ConfigError, match="text_hidden_size: 0"):
        replace(config, text_hidden_size=0)

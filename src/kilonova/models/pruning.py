"""Structured pruning: a decoder with fewer layers, narrower feed-forwards or fewer heads, of the layout it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from kilonova.core.device import choose_device
from kilonova.core.errors import ConfigError
from kilonova.core.files import atomic_directory
from kilonova.core.progress import ProgressReporter
from kilonova.models.calibration import SEQUENCE_LENGTH, SEQUENCES, LayerInputs, calibration_tokens
from kilonova.models.checkpoint import load_decoder, save_decoder
from kilonova.models.companions import check_new, copy_companions
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder, DecoderLayer
from kilonova.nn.mlp import GatedMLP
from kilonova.nn.quantized import num_quantized_weights
from kilonova.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """How much stays: layers, neurons of every dense feed-forward, key-value heads with the queries that share them.

    None keeps all.
    """

    num_hidden_layers: int | None = None
    intermediate_size: int | None = None
    num_key_value_heads: int | None = None

    def apply_to(self, config: DecoderConfig) -> None:
        """`ConfigError` unless this makes something of `config` smaller and leaves at least one of everything."""
        smaller = False
        for name in ("num_hidden_layers", "intermediate_size", "num_key_value_heads"):
            kept, present = getattr(self, name), getattr(config, name)
            if kept is not None and not 1 <= kept <= present:
                raise ConfigError(f"{name}: {kept} is not between 1 and the model's {present}")
            smaller |= kept is not None and kept < present
        if not smaller:
            raise ConfigError("nothing to prune: give fewer layers, a smaller intermediate size or fewer heads")
        if self.intermediate_size is not None and config.moe_layers:
            raise ConfigError("intermediate_size: the feed-forwards of a mixture of experts cannot be narrowed")


@dataclass(frozen=True)
class Importance:
    """How much each part does for some text; only ranks within one tensor mean something.

    `layers` `[layers]` is the block influence, 1 - the mean cosine of a layer's input and output (arXiv 2403.03853,
    equation 1). `neurons` holds for each layer `[intermediate]` (None: a mixture of experts), `key_value_heads`
    `[key-value heads]`: the mean over a sequence of a neuron's absolute activation, or of the lengths of the outputs of
    a group's heads, and then the Euclidean norm over sequences (arXiv 2407.14679, section 2.2).
    """

    layers: Tensor
    neurons: tuple[Tensor | None, ...]
    key_value_heads: tuple[Tensor, ...]


@torch.no_grad()
def measure_importance(decoder: Decoder, tokens: Tensor, *, quiet: bool = True) -> Importance:
    """What the parts of `decoder` do for the token ids `[N, T]`."""
    inputs = LayerInputs(decoder, tokens)
    groups = decoder.config.num_key_value_heads
    influences, neurons, heads = [], [], []
    with ProgressReporter("measure: layers", decoder.config.num_hidden_layers, quiet=quiet) as progress:
        for number, layer in enumerate(decoder.model.layers, start=1):
            assert isinstance(layer, DecoderLayer)
            with inputs.computing(layer):
                heads.append(_head_importance(layer, inputs, groups))
                neurons.append(_neuron_importance(layer, inputs) if isinstance(layer.mlp, GatedMLP) else None)
                similarities = []
                for index, output in enumerate(inputs.outputs(layer)):
                    similarities.append(cosine_similarity(inputs.batches[index].float(), output.float(), dim=-1))
                    inputs.batches[index] = output
                influences.append(1 - torch.cat(similarities).mean())
            progress.update(number)
    return Importance(torch.stack(influences), tuple(neurons), tuple(heads))


@torch.no_grad()
def prune_decoder(decoder: Decoder, config: PruningConfig, importance: Importance) -> Decoder:
    """A new decoder of the most important parts of `decoder`, in their order, with copies of its weights.

    Layers are chosen once for the decoder, neurons and heads for each layer by itself.
    """
    config.apply_to(decoder.config)
    if num_quantized_weights(decoder):
        raise ConfigError("the model is quantised; prune the one it was made from, and quantise the result")
    old = decoder.config
    layers = _largest(importance.layers, config.num_hidden_layers)
    ratio = old.num_attention_heads // old.num_key_value_heads
    groups = config.num_key_value_heads or old.num_key_value_heads
    shape = replace(
        old,
        num_hidden_layers=len(layers),
        intermediate_size=config.intermediate_size or old.intermediate_size,
        num_key_value_heads=groups,
        num_attention_heads=groups * ratio,
        layer_windows=tuple(old.layer_windows[layer] for layer in layers) if old.layer_windows else (),
        moe_layers=frozenset(new for new, layer in enumerate(layers) if layer in old.moe_layers),
    )
    if not shape.moe_layers:
        shape = replace(shape, num_experts=0, num_experts_per_tok=0, moe_intermediate_size=0, norm_topk_prob=False)
    with torch.device("meta"):
        pruned = Decoder(shape)
    _copy(decoder, pruned, "model.embed_tokens.weight", "model.embed_tokens.weight")
    _copy(decoder, pruned, "model.norm.weight", "model.norm.weight")
    if not shape.tie_word_embeddings:
        _copy(decoder, pruned, "lm_head.weight", "lm_head.weight")
    else:
        pruned.lm_head.weight = pruned.model.embed_tokens.weight
    for new, layer in enumerate(layers):
        kept_groups = torch.tensor(_largest(importance.key_value_heads[layer], config.num_key_value_heads))
        kept_heads = (kept_groups[:, None] * ratio + torch.arange(ratio)).flatten()
        queries, keys = _rows(kept_heads, old.head_dim), _rows(kept_groups, old.head_dim)
        neurons = importance.neurons[layer]
        kept = None if neurons is None else torch.tensor(_largest(neurons, config.intermediate_size))
        chosen = {
            "self_attn.q_proj": (queries, None),
            "self_attn.k_proj": (keys, None),
            "self_attn.v_proj": (keys, None),
            "self_attn.o_proj": (None, queries),
            "mlp.gate_proj": (kept, None),
            "mlp.up_proj": (kept, None),
            "mlp.down_proj": (None, kept),
        }
        for name, _ in decoder.model.layers[layer].named_parameters():
            rows, columns = chosen.get(name.rpartition(".")[0], (None, None))
            _copy(decoder, pruned, f"model.layers.{layer}.{name}", f"model.layers.{new}.{name}", rows, columns)
    return pruned.to(decoder.lm_head.weight.device).eval()


def prune_directory(
    source: str | Path,
    output: str | Path,
    config: PruningConfig,
    *,
    calibration: Path | None = None,
    sequences: int = SEQUENCES,
    length: int = SEQUENCE_LENGTH,
    quiet: bool = False,
) -> Decoder:
    """Write to `output`, which must not exist or be empty, the model of `source` pruned; returns it.

    See `calibration_tokens` for `calibration`.
    """
    output = Path(output)
    check_new(output)
    decoder = load_decoder(source, device=choose_device())
    config.apply_to(decoder.config)
    length = min(length, decoder.config.max_position_embeddings)
    tokens = calibration_tokens(Tokenizer.from_directory(source), calibration, sequences, length)
    pruned = prune_decoder(decoder, config, measure_importance(decoder, tokens, quiet=quiet))
    with atomic_directory(output) as temporary:
        copy_companions(source, temporary, "generation_config.json", "training.json")
        save_decoder(pruned, temporary)
    return pruned


def _head_importance(layer: DecoderLayer, inputs: LayerInputs, groups: int) -> Tensor:
    total = torch.zeros(groups, device=inputs.batches[0].device)
    head_dim = layer.self_attn.head_dim

    def add(attended: Tensor) -> None:
        norms = attended.float().unflatten(-1, (groups, -1, head_dim)).norm(dim=-1).sum(dim=-1)
        total.add_(norms.mean(dim=1).square().sum(dim=0))

    inputs.observe(layer, "self_attn.o_proj", add)
    return total.sqrt()


def _neuron_importance(layer: DecoderLayer, inputs: LayerInputs) -> Tensor:
    down = layer.mlp.down_proj
    assert isinstance(down, nn.Linear)
    total = torch.zeros(down.in_features, device=inputs.batches[0].device)

    def add(activations: Tensor) -> None:
        total.add_(activations.float().abs().mean(dim=1).square().sum(dim=0))

    inputs.observe(layer, "mlp.down_proj", add)
    return total.sqrt()


def _largest(importance: Tensor, count: int | None) -> Sequence[int]:
    """Where the `count` largest are, ascending; all of them for None."""
    if count is None:
        return range(len(importance))
    return sorted(importance.argsort(descending=True, stable=True)[:count].tolist())


def _rows(heads: Tensor, head_dim: int) -> Tensor:
    """The rows of a projection that make `heads`."""
    return (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()


def _copy(
    source: Decoder, target: Decoder, name: str, new: str, rows: Tensor | None = None, columns: Tensor | None = None
) -> None:
    parameter = source.get_parameter(name).detach()
    if rows is not None:
        parameter = parameter[rows.to(parameter.device)]
    if columns is not None and parameter.ndim == 2:
        parameter = parameter[:, columns.to(parameter.device)]
    owner, _, leaf = new.rpartition(".")
    setattr(target.get_submodule(owner), leaf, nn.Parameter(parameter.clone()))

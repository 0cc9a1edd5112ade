"""A student that learns a teacher's distribution over the next token, beside the token itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from kilonova.core.errors import ConfigError
from kilonova.data.packing import Batch
from kilonova.models.checkpoint import load_config, load_decoder
from kilonova.nn.distillation import DistillationLoss, linear_distillation, linear_top_k_distillation
from kilonova.text.tokenizer import Tokenizer
from kilonova.train.language_context import LanguageContext
from kilonova.train.objective import Loss
from kilonova.train.objectives.language_model import LanguageModelObjective
from kilonova.train.objectives.teacher_targets import TeacherTargets
from kilonova.train.placed import PlacedDecoder


@dataclass(frozen=True, kw_only=True)
class DistillationSection:
    """What is learnt from `teacher`, the directory of a checkpoint with the student's vocabulary.

    `beta`, `temperature` and `hard_weight` are those of `DistillationLoss`: the kind of divergence, how flat both
    distributions are made for it, and the weight of the plain cross-entropy with the text. With `top_k` the teacher's
    likeliest tokens are computed once, kept in `data.cache`, and the teacher is not held while the student trains.
    Rows hold `whole_documents`, as in supervised fine-tuning, or sources cut end to end, as in pretraining.
    """

    teacher: str
    top_k: int | None = None
    beta: float = 0.0
    temperature: float = 1.0
    hard_weight: float = 0.0
    whole_documents: bool = False

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError("distill.top_k: must be at least 1")
        if not 0 <= self.beta <= 1:
            raise ConfigError("distill.beta: must be from 0 (forward divergence) to 1 (reverse)")
        if not self.temperature > 0:
            raise ConfigError("distill.temperature: must be above 0")
        if not 0 <= self.hard_weight < 1:
            raise ConfigError("distill.hard_weight: must be at least 0 and below 1")


class DistillationObjective(LanguageModelObjective):
    """Divergence from a teacher's distribution at every position that carries a label, mixed with cross-entropy.

    The validation losses are those of the language model alone.
    """

    def __init__(self, context: LanguageContext, model: PlacedDecoder) -> None:
        recipe, section = context.recipe, context.recipe.distill
        assert section is not None
        super().__init__(context, model, whole_documents=section.whole_documents)
        check_vocabulary(context.tokenizer, model.decoder.config.vocab_size, section)
        self._loss = DistillationLoss(section.beta, section.temperature, section.hard_weight)
        self._teacher: PlacedDecoder | None = None
        self._targets: TeacherTargets | None = None
        if section.top_k is None:
            decoder = load_decoder(section.teacher, dtype=context.dtype).requires_grad_(False)
            # A forward pass is a third of the work of a training step.
            self.flops_per_token += decoder.flops_per_token(recipe.data.sequence_length) / 3
            self._teacher = PlacedDecoder(decoder, context.device, context.dtype, recipe.compile, context.mesh)
        else:
            self._targets = TeacherTargets(context, Path(section.teacher), section.top_k, section.temperature)
            self._targets.prepare(self.micro_batches, recipe.steps)

    def loss(self, batch: Batch) -> Loss:
        targets = None if self._targets is None else self._targets.of(batch)
        batch = batch.to(self.model.device)
        labels = batch.labels.flatten()
        hidden = self.model.hidden_states(batch).flatten(0, 1)
        options = {"compiled": self.model.compiled}
        if self._teacher is not None:
            with torch.no_grad():
                teacher_hidden = self._teacher.hidden_states(batch).flatten(0, 1)
            weight, teacher_weight = self.model.output_weight, self._teacher.output_weight
            with self.model.autocast():
                sums = linear_distillation(
                    hidden, weight, teacher_hidden, teacher_weight, labels, self._loss, **options
                )
        else:
            assert targets is not None
            indices, log_probs = (tensor.to(self.model.device) for tensor in targets)
            with self.model.autocast():
                sums = linear_top_k_distillation(
                    hidden, self.model.output_weight, indices, log_probs, labels, self._loss, **options
                )
        parts = {"divergence": sums.divergence, "cross_entropy": sums.cross_entropy, "agreement": sums.agreement}
        return Loss(sums.loss, parts)


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, section: DistillationSection) -> None:
    """ConfigError unless the teacher writes the student's tokens, and as many of them."""
    if Tokenizer.from_directory(section.teacher).vocabulary() != tokenizer.vocabulary():
        raise ConfigError(f"distill.teacher: {section.teacher} has another vocabulary than the student")
    if (size := load_config(section.teacher).vocab_size) != vocab_size:
        raise ConfigError(f"distill.teacher: its vocab_size is {size}, the student's {vocab_size}")
    if section.top_k is not None and section.top_k > vocab_size:
        raise ConfigError(f"distill.top_k: {section.top_k} is more than the vocabulary's {vocab_size}")

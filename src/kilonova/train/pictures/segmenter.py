"""Training of a segmenter with mixed queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kilonova.data.pictures.segments import SegmentBatch, SegmentSample, to_batch
from kilonova.models.components import Component, save_folder
from kilonova.models.segmenter.model import Answers
from kilonova.models.segmenter.pixels import PictureFeatures
from kilonova.models.segmenter.post_process import certainty, instances
from kilonova.models.segmenter.texts import Questions, encode_questions
from kilonova.models.text_encoder.tokenized import TransformerTextEncoder
from kilonova.train.objective import Loss
from kilonova.train.pictures.segmenter_losses import Targets, answer_loss, foreground_loss, match
from kilonova.train.pictures.segmenter_metrics import PanopticQuality, intersection_over_union
from kilonova.train.pictures.segmenter_parts import SegmenterContext, SegmenterModel, forward_flops, starting_parts

_TOKEN_SIZE = 16
# For the count of operations alone.
_TYPICAL_TEXTS = 6
_TYPICAL_TEXT_TOKENS = 20
FOLDER_CLASS = "KilonovaSegmenter"


class SegmenterObjective:
    """The loss of the answers of all layers, each with a matching of its own, and of the foreground; the items are
    pictures.

    What is evaluated and exported is the average of the weights.
    """

    def __init__(self, context: SegmenterContext) -> None:
        recipe, section = context.recipe, context.recipe.segmenter
        segmenter, text_encoder, self._tokenizer = starting_parts(recipe)
        self._context, self._section = context, section
        self._model = SegmenterModel(segmenter, text_encoder, section.ema_decay).to(context.device)
        self._segmenter = self._model.segmenter
        self._texts = TransformerTextEncoder(self._model.text_encoder, self._tokenizer)
        self._encode = torch.compile(self._segmenter.encode) if recipe.compile else self._segmenter.encode
        self.trained: nn.Module = self._model
        self.micro_batches = context.batches()
        width, height = recipe.pictures.sizes[0]
        positions = width // _TOKEN_SIZE * (height // _TOKEN_SIZE)
        self.tokens_per_step = recipe.batch_size * positions
        # A backward pass costs twice a forward pass.
        flops = forward_flops(segmenter.config, height, width, _TYPICAL_TEXTS, _TYPICAL_TEXT_TOKENS)
        self.flops_per_token = 3 * flops / positions
        self._validation = context.validation_samples()

    def num_items(self, batch: SegmentBatch) -> int:
        return len(batch.images)

    def loss(self, batch: SegmentBatch) -> Loss:
        features, questions, levels = self._answers(batch)
        device = self._context.device
        targets = Targets(batch.masks.to(device), batch.labels.to(device), questions.text_mask)
        pairs = [match(answers, targets, self._section) for answers in levels]
        parts = [answer_loss(answers, targets, pair) for answers, pair in zip(levels, pairs, strict=True)]
        foreground = foreground_loss(features.alpha_logits.float(), batch.alpha.to(device))
        total = self._section.foreground_weight * foreground
        for part in parts:
            total = total + part.total(self._section)
        pictures, queries, _ = pairs[-1]
        conditional = (queries >= self._segmenter.config.num_learnable_queries).to(foreground.dtype)
        share = 1 / targets.there.sum(1).clamp(min=1)[pictures]
        metrics = {
            "class_loss": parts[-1].classes.detach().sum(),
            "mask_loss": parts[-1].masks.detach().sum(),
            "dice_loss": parts[-1].dice.detach().sum(),
            "foreground_loss": foreground.detach().sum(),
            "conditional_share": (conditional * share).sum(),
        }
        return Loss(total.sum(), metrics)

    def step_done(self) -> None:
        self._model.average.update(self._model)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """For each validation source, the intersection over union of foregrounds and of what a phrase names, as means
        over pictures, and the panoptic quality of named things."""
        results = {}
        with self._model.average.applied(self._model):
            for name, samples in self._validation.items():
                foreground, referring, quality = [], [], PanopticQuality()
                for batch, features, answers in self._found(samples["phrase"]):
                    foreground.append(intersection_over_union(features.alpha_logits > 0, batch.alpha > 0.5))
                    referring.append(_referring(batch, answers))
                for batch, _, answers in self._found(samples["names"]):
                    _add_instances(quality, batch, answers)
                results[f"{name} foreground IoU"] = float(torch.cat(foreground).mean())
                results[f"{name} referring IoU"] = float(torch.cat(referring).mean())
                results[f"{name} PQ"] = quality.value
        return results

    def export(self, directory: Path) -> None:
        """Write a folder of the segmenter, its text encoder and its tokenizer."""
        dtype = getattr(torch, self._context.recipe.save_dtype)
        with self._model.average.applied(self._model):
            components: dict[str, Component] = {
                "segmenter": self._segmenter,
                "text_encoder": self._model.text_encoder,
                "tokenizer": self._tokenizer,
            }
            save_folder(components, directory, FOLDER_CLASS, dtype=dtype)

    def data_record(self) -> dict[str, Any]:
        return self._context.pictures_record()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _answers(self, batch: SegmentBatch) -> tuple[PictureFeatures, Questions, list[Answers]]:
        with self._context.autocast():
            features = self._encode(batch.images.to(self._context.device))
            questions = encode_questions(self._texts, batch.texts)
            return features, questions, self._segmenter.decode(features, questions)

    def _found(self, samples: list[SegmentSample]) -> list[tuple[SegmentBatch, PictureFeatures, Answers]]:
        """Batches of samples with what is found in them, on the CPU."""
        found = []
        size = self._context.recipe.micro_batch_size
        for start in range(0, len(samples), size):
            batch = to_batch(samples[start : start + size])
            features, _, levels = self._answers(batch)
            answers = Answers(levels[-1].class_logits.cpu(), levels[-1].mask_logits.cpu())
            alpha = PictureFeatures(features.tokens, features.eighth, features.pixels, features.alpha_logits.cpu())
            found.append((batch, alpha, answers))
        return found


def _referring(batch: SegmentBatch, answers: Answers) -> Tensor:
    """The intersection over union of what is found for each picture that was asked for by one phrase, `[P]`."""
    found = certainty(answers)[:, 0] >= 0.5
    true = ((batch.masks >= 0.5) & batch.labels[:, :, :1, None]).any(1)
    alone = torch.tensor([len(texts) == 1 for texts in batch.texts])
    return intersection_over_union(found, true)[alone]


def _add_instances(quality: PanopticQuality, batch: SegmentBatch, answers: Answers) -> None:
    for number, texts in enumerate(batch.texts):
        there = Answers(answers.class_logits[..., : len(texts)], answers.mask_logits)
        found = [(one.text, one.mask_logits > 0) for one in instances(there, number)]
        true = [
            (frozenset(fitting.nonzero()[:, 0].tolist()), mask >= 0.5)
            for fitting, mask in zip(batch.labels[number], batch.masks[number], strict=True)
            if fitting.any()
        ]
        quality.add(found, true)

"""Guesses of the next tokens by a smaller model that reads along."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import torch

from kilonova.core.errors import CheckpointError
from kilonova.engine.kv_cache import KVCache
from kilonova.engine.runner import ModelRunner, StepTokens
from kilonova.engine.sampling import sample
from kilonova.engine.scheduler import Sequence
from kilonova.engine.speculation import StepCost
from kilonova.models.decoder.model import Decoder

# The smaller model reads at most so many tokens of a prompt before a step of the larger one.
_READ_TOKENS = 256


@dataclass(slots=True)
class _Read:
    """What is in a slot: the first `known` tokens of a sequence, then guesses."""

    sequence: Sequence | None = None
    known: int = 0
    guesses: list[int] = field(default_factory=list)


class DraftModel:
    """A decoder with a cache of its own, which has the same slots as that of the model it guesses for.

    It draws with the numbers that the model will draw with, so that two models with similar distributions draw the
    same tokens, at any temperature. Raises CheckpointError for another vocabulary than `vocab_size`.
    """

    def __init__(self, model: Decoder, vocab_size: int, max_num_seqs: int, max_context: int) -> None:
        if model.config.vocab_size != vocab_size:
            raise CheckpointError(
                f"the draft model has a vocabulary of {model.config.vocab_size} tokens, its target one of {vocab_size}"
            )
        self.max_length = min(max_context, model.config.max_position_embeddings)
        weight = model.model.embed_tokens.weight
        cache = KVCache(
            model.config, weight.dtype, weight.device, max_num_seqs=max_num_seqs, max_context=self.max_length
        )
        self.max_length = cache.max_length
        self._runner = ModelRunner(model, cache)
        self._slots = [_Read() for _ in range(max_num_seqs)]
        self.cost = StepCost.measure(self._dry_step)

    @torch.inference_mode()
    def propose(self, wanted: Several[tuple[Sequence, int]]) -> list[list[int]]:
        """As many guesses as wanted for each sequence, fewer where it is not read to its end yet or room ends."""
        guesses: list[list[int]] = [[] for _ in wanted]
        steps = {index: step for index, one in enumerate(wanted) if (step := self._catch_up(*one)) is not None}
        while steps:
            hidden = self._runner.step(list(steps.values()))
            ends = torch.tensor([len(step.token_ids) for step in steps.values()]).cumsum(0) - 1
            sequences = [wanted[index][0] for index in steps]
            draws = [
                (sequence.seed, sequence.num_output_tokens + len(guesses[index]))
                for index, sequence in zip(steps, sequences, strict=True)
            ]
            tokens = sample(self._runner.logits(hidden[ends]), [one.sampling for one in sequences], draws)
            following: dict[int, StepTokens] = {}
            for (index, step), token in zip(steps.items(), tokens, strict=True):
                end = step.start + len(step.token_ids)
                sequence, length = wanted[index]
                if token >= 0 and end >= len(sequence.token_ids):
                    guesses[index].append(token)
                    if len(guesses[index]) < length:
                        following[index] = StepTokens(step.slot, end, [token])
            steps = following
        for (sequence, _), guessed in zip(wanted, guesses, strict=True):
            # The last guess has not been read.
            self._slots[sequence.slot].guesses = guessed[:-1]
        return guesses

    @torch.inference_mode()
    def _dry_step(self, num_tokens: int) -> None:
        self._runner.logits(self._runner.step([StepTokens(0, 0, [0] * num_tokens)]))
        self._runner.cache.release(0)

    def _catch_up(self, sequence: Sequence, length: int) -> StepTokens | None:
        """What of the sequence is not read yet, as far as it is read now; None where room ends."""
        slot, token_ids = sequence.slot, sequence.token_ids
        read = self._slots[slot]
        if read.sequence is not sequence:
            self._runner.cache.release(slot)
            read = self._slots[slot] = _Read(sequence)
        right = 0
        for guessed, token in zip(read.guesses, token_ids[read.known :], strict=False):
            if guessed != token:
                break
            right += 1
        # The last token is read in any case, for the guess that follows from it.
        start = min(read.known + right, len(token_ids) - 1)
        end = min(len(token_ids), start + _READ_TOKENS)
        read.known, read.guesses = start, []
        if end + length > self.max_length:
            return None
        read.known = end
        return StepTokens(slot, start, token_ids[start:end])

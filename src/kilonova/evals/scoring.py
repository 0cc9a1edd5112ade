"""Log-likelihoods from a decoder: choices scored together as a tree of tokens, and bits per byte of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kilonova.core.errors import ContextLengthExceeded
from kilonova.models.decoder.model import Decoder
from kilonova.text.bpe import END_OF_TEXT
from kilonova.text.tokenizer import Tokenizer

_WINDOWS_AT_ONCE = 4

Layer = tuple[Tensor, Tensor]


class TreeAttention:
    """Attention of new tokens to a cached prefix and to those new tokens that `allowed` marks.

    `allowed` is bool `[T, P + T]` and `distance` int64 `[T, P + T]`, how many positions back a key stands. After the
    forward pass `layers` holds keys and values `[1, Hkv, keep, D]` of the first `keep` positions of every layer.
    """

    def __init__(self, past: Sequence[Layer], allowed: Tensor, distance: Tensor, keep: int) -> None:
        self._past = past
        self._allowed = allowed
        self._distance = distance
        self._keep = keep
        self.layers: list[Layer] = []

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layer_index: int, sliding_window: int | None
    ) -> Tensor:
        if self._past:
            past_key, past_value = self._past[layer_index]
            key, value = torch.cat((past_key, key), dim=2), torch.cat((past_value, value), dim=2)
        self.layers.append((key[:, :, : self._keep], value[:, :, : self._keep]))
        mask = self._allowed if sliding_window is None else self._allowed & (self._distance < sliding_window)
        grouped = query.shape[1] != key.shape[1]
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


class ChoiceScorer:
    """Scores fixed choices after varying prompts: one forward pass a prompt, whatever the number of choices.

    The choices, token sequences that include the end of the turn, are merged into a tree whose branches do not see each
    other. Keys and values of the previous prompt are reused as far as the next one starts the same.
    """

    def __init__(self, model: Decoder, choices: Sequence[Sequence[int]]) -> None:
        if not choices or not all(choices):
            raise ValueError("choices must be token sequences that are not empty")
        self._model = model
        self._device = model.lm_head.weight.device
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._edges: list[list[tuple[int, int]]] = []
        nodes: dict[tuple[int, ...], int] = {(): -1}
        for choice in choices:
            path: list[tuple[int, int]] = []
            for length, token in enumerate(choice):
                parent = nodes[tuple(choice[:length])]
                path.append((parent + 1, token))
                prefix = tuple(choice[: length + 1])
                if prefix not in nodes and length + 1 < len(choice):
                    nodes[prefix] = len(self._tokens)
                    self._tokens.append(token)
                    self._parents.append(parent)
            self._edges.append(path)
        self._depths: list[int] = []
        for parent in self._parents:
            self._depths.append(1 if parent < 0 else self._depths[parent] + 1)
        self._prompt: list[int] = []
        self._layers: list[Layer] = []

    @torch.no_grad()
    def score(self, prompt: Sequence[int]) -> list[float]:
        """The natural-log probability of every choice as the exact continuation of `prompt`.

        Raises ContextLengthExceeded where prompt and choices do not fit the model.
        """
        longest = len(prompt) + max((len(edges) for edges in self._edges), default=0)
        limit = self._model.config.max_position_embeddings
        if longest > limit:
            raise ContextLengthExceeded(
                f"prompt and choice have {longest} tokens, the model holds {limit}", field="prompt"
            )
        shared = min(_shared_length(self._prompt, prompt), len(prompt) - 1)
        new = len(prompt) - shared
        tree = len(self._tokens)
        positions = torch.tensor([*range(shared, len(prompt)), *(len(prompt) - 1 + depth for depth in self._depths)])
        key_positions = torch.cat((torch.arange(shared), positions))
        allowed = torch.zeros(new + tree, shared + new + tree, dtype=torch.bool)
        allowed[:, :shared] = True
        allowed[:new, shared : shared + new] = torch.ones(new, new, dtype=torch.bool).tril()
        allowed[new:, shared : shared + new] = True
        for node, parent in enumerate(self._parents):
            if parent >= 0:
                allowed[new + node] |= allowed[new + parent]
            allowed[new + node, shared + new + node] = True
        distance = positions[:, None] - key_positions[None, :]
        past = [(key[:, :, :shared], value[:, :, :shared]) for key, value in self._layers] if shared else []
        attend = TreeAttention(past, allowed.to(self._device), distance.to(self._device), len(prompt))
        tokens = torch.tensor([[*prompt[shared:], *self._tokens]], device=self._device)
        hidden = self._model.hidden_states(tokens, position_ids=positions[None].to(self._device), attend=attend)
        logits = self._model.lm_head(hidden[0, new - 1 :]).float()
        table = torch.log_softmax(logits, dim=-1)
        self._prompt, self._layers = list(prompt), attend.layers
        flat = [edge for edges in self._edges for edge in edges]
        rows, columns = torch.tensor(flat, device=self._device).T
        found = iter(table[rows, columns].tolist())
        return [math.fsum(next(found) for _ in edges) for edges in self._edges]


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return length


def choice_tokens(tokenizer: Tokenizer, choices: Sequence[str]) -> list[list[int]]:
    """Each choice as the tokens of an assistant's turn, up to and including its end token."""
    user = {"role": "user", "content": "?"}
    prompt = tokenizer.encode_template_messages([user])
    found = []
    for choice in choices:
        messages = [user, {"role": "assistant", "content": choice}]
        tokens = tokenizer.encode_template_messages(messages, add_generation_prompt=False)
        if tokens[: len(prompt)] != prompt:
            raise ValueError("the chat template does not start an assistant's turn with its generation prompt")
        answer = tokens[len(prompt) :]
        end = next((at for at, token in enumerate(answer) if token in tokenizer.stop_token_ids), len(answer) - 1)
        found.append(answer[: end + 1])
    return found


@dataclass(frozen=True)
class ScoredText:
    """Negative log-likelihoods in nats and bytes, block by block, of some text."""

    nats: list[float]
    bytes: list[float]
    total_bytes: int
    total_tokens: int

    @property
    def bits_per_byte(self) -> float:
        return math.fsum(self.nats) / math.log(2) / self.total_bytes


@torch.no_grad()
def score_texts(
    model: Decoder, tokenizer: Tokenizer, texts: Sequence[str], *, context: int | None = None
) -> ScoredText:
    """The negative log-likelihood of every token of every text, each text on its own.

    The first token is predicted from `<|endoftext|>` (else the end token). A window of `context` tokens (default: all
    the model holds) moves by half its length, so that later tokens always see at least half a window before them.
    """
    context = min(context or model.config.max_position_embeddings, model.config.max_position_embeddings)
    start = tokenizer.token_id(END_OF_TEXT)
    start = tokenizer.eos_token_id if start is None else start
    nats: list[float] = []
    sizes: list[float] = []
    tokens_seen = 0
    for text in texts:
        tokens = [start, *tokenizer.encode(text)]
        tokens_seen += len(tokens) - 1
        for first, scored, losses in _windows(model, tokens, context):
            block = tokens[first : first + scored]
            nats.append(float(losses.sum()))
            sizes.append(float(len(tokenizer.decode(block).encode())))
    total = sum(len(text.encode()) for text in texts)
    return ScoredText(nats, sizes, total, tokens_seen)


def _windows(model: Decoder, tokens: list[int], context: int) -> Iterator[tuple[int, int, Tensor]]:
    """Yields the place of the first scored token, how many are scored, and their losses."""
    device = model.lm_head.weight.device
    stride = max(1, context // 2)
    spans: list[tuple[int, int, int]] = []
    scored_to = 1
    begin = 0
    while scored_to < len(tokens):
        end = min(begin + context, len(tokens) - 1)
        spans.append((begin, scored_to, end + 1))
        scored_to = end + 1
        begin += stride
    for group_start in range(0, len(spans), _WINDOWS_AT_ONCE):
        group = spans[group_start : group_start + _WINDOWS_AT_ONCE]
        width = max(end - 1 - begin for begin, _, end in group)
        rows = torch.zeros(len(group), width, dtype=torch.long)
        for row, (begin, _, end) in enumerate(group):
            rows[row, : end - 1 - begin] = torch.tensor(tokens[begin : end - 1])
        hidden = model.hidden_states(rows.to(device))
        for row, (begin, first, end) in enumerate(group):
            logits = model.lm_head(hidden[row, first - 1 - begin : end - 1 - begin]).float()
            targets = torch.tensor(tokens[first:end], device=device)
            yield first, end - first, nn.functional.cross_entropy(logits, targets, reduction="none")

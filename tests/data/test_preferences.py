from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kilonova.core.errors import ConfigError, DataError
from kilonova.core.types import IGNORE_INDEX
from kilonova.data.preferences import PackedPairs, TokenizedPairs, make_pair_batch, tokenize_pairs
from kilonova.data.sources import Source
from kilonova.text.tokenizer import Tokenizer


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def pair(prompt: str, chosen: str, rejected: str, **more) -> dict:
    sides = {"chosen": [turn("assistant", chosen)], "rejected": [turn("assistant", rejected)]}
    return {"prompt": [turn("user", prompt)], **sides, **more}


ROWS = [
    pair("say fox", "the quick fox", "a dog", margin=0.5),
    pair("say dog", "dog", "the quick brown fox jumps over the lazy dog"),
    pair("count", "1 2 3", "3 2 1"),
    pair("a much longer prompt with many words", "one", "two two two"),
]


def tokenized(root: Path, tokenizer_directory: Path, rows: list[dict]) -> TokenizedPairs:
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source("pairs", "pairs.jsonl", format="preference")
    return tokenize_pairs(source, root, Tokenizer.from_directory(tokenizer_directory), "print", root / "cache")


def documents(pairs: TokenizedPairs) -> list[tuple[list[int], list[bool]]]:
    spans = zip(pairs.documents.offsets, pairs.documents.offsets[1:], strict=False)
    return [(pairs.documents.tokens[a:b].tolist(), pairs.documents.trained[a:b].tolist()) for a, b in spans]


def test_only_the_completion_is_trained_up_to_its_end_token(tiny_tokenizer_directory, tmp_path) -> None:
    tokenizer = Tokenizer.from_directory(tiny_tokenizer_directory)
    pairs = tokenized(tmp_path, tiny_tokenizer_directory, ROWS)
    assert len(pairs) == 4
    assert pairs.margins.tolist() == [0.5, 0, 0, 0]
    for number, (tokens, trained) in enumerate(documents(pairs)):
        row = ROWS[number // 2]
        completion = row["chosen" if number % 2 == 0 else "rejected"]
        prompt = tokenizer.encode_template_messages(row["prompt"])
        whole = tokenizer.encode_template_messages([*row["prompt"], *completion], add_generation_prompt=False)
        assert whole[: len(tokens)] == tokens
        assert tokens[-1] == tokenizer.eos_token_id
        assert trained == [False] * len(prompt) + [True] * (len(tokens) - len(prompt))


def test_an_implicit_prompt_is_what_both_conversations_begin_with(tiny_tokenizer_directory, tmp_path) -> None:
    from trl.data_utils import extract_prompt

    explicit = tokenized(tmp_path, tiny_tokenizer_directory, ROWS)
    rows = [
        {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"], "margin": 0.5}
        for row in ROWS
    ]
    implicit = tokenized(tmp_path, tiny_tokenizer_directory, rows)
    assert documents(implicit) == documents(explicit)
    assert extract_prompt(rows[0])["prompt"] == ROWS[0]["prompt"]


def test_the_prompt_and_both_completions_are_trl_s(tiny_micro_directory, tmp_path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(str(tmp_path), use_cpu=True, report_to=[], max_length=None, bf16=False)
    theirs = DPOTrainer(
        str(tiny_micro_directory),
        args=arguments,
        train_dataset=Dataset.from_list([{k: v for k, v in row.items() if k != "margin"} for row in ROWS]),
        processing_class=AutoTokenizer.from_pretrained(tiny_micro_directory),
    ).train_dataset
    ours = documents(tokenized(tmp_path, tiny_micro_directory, ROWS))
    for number, row in enumerate(theirs):
        for side, key in enumerate(("chosen_ids", "rejected_ids")):
            tokens, trained = ours[2 * number + side]
            start = len(row["prompt_ids"])
            assert tokens[:start] == row["prompt_ids"]
            # Theirs goes on with what the template writes behind the end token.
            assert row[key][: len(tokens) - start] == tokens[start:]
            assert len(row[key]) == len(tokens) - start + 1
            assert sum(trained) == len(tokens) - start


def test_pairs_that_teach_nothing_are_left_out_and_counted(tiny_tokenizer_directory, tmp_path) -> None:
    rows = [*ROWS, pair("same", "fox", "fox"), pair("empty", "fox", " "), pair("empty", "", "fox")]
    pairs = tokenized(tmp_path, tiny_tokenizer_directory, rows)
    assert len(pairs) == 4
    assert pairs.left_out == {"identical": 1, "empty": 2}
    longest = max(np.diff(pairs.documents.offsets).reshape(-1, 2).sum(axis=1))
    assert PackedPairs([pairs], [1.0], int(longest), 0).num_too_long == 0
    packed = PackedPairs([pairs], [1.0], int(longest) - 1, 0)
    assert (packed.num_too_long, packed.num_pairs) == (1, 3)


def test_the_cache_is_read_again_and_tells_files_apart(tiny_tokenizer_directory, tmp_path) -> None:
    first = tokenized(tmp_path, tiny_tokenizer_directory, ROWS)
    stamp = next((tmp_path / "cache").glob("pairs-*/tokens.npy")).stat().st_mtime_ns
    source = Source("pairs", "pairs.jsonl", format="preference")
    again = tokenize_pairs(source, tmp_path, None, "print", tmp_path / "cache")  # type: ignore[arg-type]
    assert next((tmp_path / "cache").glob("pairs-*/tokens.npy")).stat().st_mtime_ns == stamp
    assert again.digest == first.digest
    assert tokenized(tmp_path, tiny_tokenizer_directory, ROWS[:3]).digest != first.digest


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "text", "chosen": [], "rejected": []}, "'prompt' is not a list of messages"),
        ({"chosen": [turn("user", "a")]}, "'rejected' is not a list of messages"),
        (pair("a", "b", "c", margin="much"), "could not convert"),
    ],
)
def test_a_malformed_row_is_named(row, message, tiny_tokenizer_directory, tmp_path) -> None:
    with pytest.raises(DataError, match=rf"pairs\.jsonl:2: .*{message}"):
        tokenized(tmp_path, tiny_tokenizer_directory, [ROWS[0], row])
    assert not list((tmp_path / "cache").glob("*"))


def test_other_formats_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="format must be preference"):
        tokenize_pairs(Source("chat", "x.jsonl", format="chat"), tmp_path, None, "", tmp_path)  # type: ignore[arg-type]


def test_rows_hold_whole_pairs_each_as_often_as_its_weight(tiny_tokenizer_directory, tmp_path) -> None:
    pairs = tokenized(tmp_path, tiny_tokenizer_directory, ROWS)
    packed = PackedPairs([pairs, pairs], [2.0, 1.0], 160, 0)
    seen = sorted(number for row in range(len(packed)) for number in packed.pairs(row))
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]
    assert len(packed) < packed.num_pairs == 12
    originals = documents(pairs)
    for row in range(len(packed)):
        tokens, trained, numbers = packed.row(row)
        assert len(tokens) == 161
        assert numbers[-1] == -1
        for place, number in enumerate(packed.pairs(row)):
            for side in (0, 1):
                here = numbers == 2 * place + side
                expected = originals[2 * (number % 4) + side]
                assert (tokens[here].tolist(), trained[here].tolist()) == expected


def test_a_batch_names_its_pairs_and_labels_only_completions(tiny_tokenizer_directory, tmp_path) -> None:
    pairs = tokenized(tmp_path, tiny_tokenizer_directory, ROWS)
    packed = PackedPairs([pairs], [1.0], 160, 0)
    batch = make_pair_batch(packed, range(len(packed)))
    assert batch.num_pairs == 4
    assert batch.pairs.shape[0] == len(packed)
    assert sorted(batch.pairs[batch.pairs >= 0].tolist()) == [0, 1, 2, 3]
    assert int((batch.rows.labels != IGNORE_INDEX).sum()) == int(pairs.documents.trained.sum())
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.pairs, batch.pairs)

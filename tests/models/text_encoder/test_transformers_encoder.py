from __future__ import annotations

import shutil

import pytest
import torch

from kilonova.core.errors import CheckpointError, ConfigError
from kilonova.models.text_encoder.transformers_encoder import TransformersTextEncoder

TEXTS = ["a red fox", "", "seven wizards quietly vex a judge"]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_tokenizer_directory, local_files_only=True)


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel

    shape = {"vocab_size": 512, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    torch.manual_seed(0)
    return CLIPTextModel(CLIPTextConfig(**shape, num_attention_heads=2, bos_token_id=1, eos_token_id=5))


def t5():
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    return T5EncoderModel(T5Config(vocab_size=512, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2))


@pytest.mark.parametrize("architecture", [clip, t5])
def test_states_are_the_models_own(architecture, tokenizer, tiny_tokenizer_directory, tmp_path):
    model = architecture().eval()
    model.save_pretrained(tmp_path / "text_encoder")
    shutil.copytree(tiny_tokenizer_directory, tmp_path / "tokenizer")
    encoder = TransformersTextEncoder.from_directory(tmp_path / "text_encoder", tmp_path / "tokenizer")
    given = encoder.encode(TEXTS)
    for index in (0, 2):
        ids = tokenizer([TEXTS[index]], return_tensors="pt").input_ids
        with torch.no_grad():
            output = model(input_ids=ids, output_hidden_states=True)
        expected = output.hidden_states[-2] if architecture is clip else output.last_hidden_state
        assert given.mask[index].sum() == ids.shape[1]
        torch.testing.assert_close(given.states[index][given.mask[index]], expected[0], rtol=1e-4, atol=1e-5)
        pooled = output.pooler_output if architecture is clip else expected.mean(1)
        torch.testing.assert_close(given.pooled[index], pooled[0], rtol=1e-4, atol=1e-5)
    assert not given.mask[1].any()
    assert not given.pooled[1].any()
    assert given.states.shape[2] == encoder.hidden_size == 16
    assert not given.states.requires_grad


def test_other_models_and_folders_are_refused(tokenizer, tmp_path):
    from transformers import BertConfig, BertModel

    bert = BertModel(BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ConfigError, match="model_type: 'bert'"):
        TransformersTextEncoder(bert, tokenizer)
    with pytest.raises(CheckpointError, match="not readable by transformers"):
        TransformersTextEncoder.from_directory(tmp_path, tmp_path)

"""Turns a Hugging Face directory into a peer's own format. Runs in the peer's environment: convert.py FORMAT IN OUT."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GROUP_SIZE = 64


def gguf_bf16(source: Path, output: Path) -> None:
    """A GGUF file in bfloat16, of a Qwen3 checkpoint."""
    import gguf
    import numpy as np

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "qwen3":
        raise SystemExit(f"{source}: only the Qwen3 layout is converted here, not {config['model_type']}")
    writer = gguf.GGUFWriter(output, "qwen3")
    writer.add_name(source.name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    _add_tokenizer(writer, gguf.TokenType, source, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, values in _bf16_tensors(source):
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        written = names.get_name(name, try_suffixes=(".weight",))
        if values.ndim == 1:
            # Norms are kept in float32: a bfloat16 is its upper half.
            writer.add_tensor(written, (values.astype(np.uint32) << 16).view(np.float32))
        else:
            raw = np.ascontiguousarray(values).view(np.uint8)
            writer.add_tensor(written, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_quantised(kind: str, source: Path, output: Path) -> None:
    """The same by llama.cpp's own quantiser: `kind` is such as q8_0 or q4_k_m."""
    import llama_cpp

    whole = output.with_name(f"{output.name}.bf16")
    gguf_bf16(source, whole)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    code = llama_cpp.llama_model_quantize(str(whole).encode(), str(output).encode(), ctypes.byref(parameters))
    whole.unlink()
    if code != 0:
        raise SystemExit(f"llama_model_quantize returned {code}")


def ctranslate2_format(kind: str, source: Path, output: Path) -> None:
    """A CTranslate2 directory; `kind` is a type of its converter, such as int8."""
    import ctranslate2.converters

    ctranslate2.converters.TransformersConverter(str(source)).convert(str(output), quantization=kind)


def openvino_format(kind: str, source: Path, output: Path) -> None:
    """An OpenVINO directory by optimum-intel, symmetric in groups for int4; `kind` is int8 or int4."""
    command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", "--model", str(source)]
    command += ["--task", "text-generation-with-past", "--weight-format", kind]
    if kind == "int4":
        command += ["--group-size", str(GROUP_SIZE), "--ratio", "1.0", "--sym"]
    subprocess.run([*command, str(output)], check=True)


def onnx_format(kind: str, source: Path, output: Path) -> None:
    """An ONNX directory by onnxruntime-genai's builder, with int8 arithmetic for int4 weights."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(output)]
    command += ["-p", kind, "-e", "cpu", "--extra_options", "int4_accuracy_level=4"]
    subprocess.run(command, check=True)


def _add_tokenizer(writer: Any, token_type: Any, source: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    size = config["vocab_size"]
    vocabulary = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    tokens, types = [], []
    for index in range(size):
        if index in added:
            tokens.append(added[index]["content"])
            types.append(token_type.CONTROL if added[index]["special"] else token_type.USER_DEFINED)
        else:
            tokens.append(vocabulary.get(index, f"[PAD{index}]"))
            types.append(token_type.NORMAL if index in vocabulary else token_type.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    eos = config["eos_token_id"]
    writer.add_eos_token_id(eos[0] if isinstance(eos, list) else eos)


def _bf16_tensors(source: Path) -> Any:
    """Names and bfloat16 tensors, as uint16, of safetensors files; read by hand, as NumPy has no bfloat16."""
    import numpy as np

    for file in sorted(source.glob("*.safetensors")):
        content = np.memmap(file, dtype=np.uint8, mode="r")
        header_size = int(content[:8].view(np.uint64)[0])
        header = json.loads(bytes(content[8 : 8 + header_size]))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + header_size + offset for offset in entry["data_offsets"])
            raw = np.array(content[start:end])
            if entry["dtype"] == "BF16":
                values = raw.view(np.uint16)
            elif entry["dtype"] == "F32":
                bits = raw.view(np.uint32)
                # Rounded to nearest, ties to even.
                values = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
            else:
                raise SystemExit(f"{file}: {name} is {entry['dtype']}, not BF16 or F32")
            yield name, values.reshape(entry["shape"])


def main() -> None:
    """Write OUT as FORMAT says, such as gguf-q8_0, ctranslate2-int8, openvino-int4 or onnx-int4."""
    form, source, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    family, _, kind = form.partition("-")
    if form == "gguf-bf16":
        gguf_bf16(source, output)
        return
    {
        "gguf": gguf_quantised,
        "ctranslate2": ctranslate2_format,
        "openvino": openvino_format,
        "onnx": onnx_format,
    }[family](kind, source, output)


if __name__ == "__main__":
    main()

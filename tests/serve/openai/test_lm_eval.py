"""lm-evaluation-harness, as it comes, on tasks of a local file: log-likelihoods, generation, and chat."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from tests.serve.conftest import run_server

DOCUMENTS = [
    {"question": "The capital of France is", "choices": [" Paris", " a cat", " the best of all"], "answer": 0},
    {"question": "One, two,", "choices": [" three", " house"], "answer": 0},
    {"question": "Water is", "choices": [" wet", " asleep"], "answer": 0},
    {"question": "She said", "choices": [" hello.", "<|im_end|>"], "answer": 0},
]
FROM_FILE = {"dataset_path": "json", "test_split": "test"}
SCORED = {
    "task": "scored",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc"}],
}
ROLLING = {
    "task": "rolling",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}
GENERATED = {
    "task": "generated",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False, "temperature": 0},
    "metric_list": [{"metric": "exact_match"}],
}
PROGRAM = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager

url, directory = sys.argv[1:]
manager = TaskManager(include_path=directory, include_defaults=False)
report = {}
for model, endpoint, tasks, more in (
    ("local-completions", "completions", ["scored", "rolling", "generated"], {"batch_size": 3}),
    ("local-chat-completions", "chat/completions", ["generated"], {"apply_chat_template": True}),
):
    arguments = {"base_url": f"{url}/v1/{endpoint}", "model": "micro", "num_concurrent": 2, "max_retries": 1}
    results = lm_eval.simple_evaluate(
        model, model_args=arguments, tasks=tasks, task_manager=manager, bootstrap_iters=0, **more
    )
    report[model] = {
        task: {
            "scores": {key: value for key, value in scores.items() if isinstance(value, float)},
            "answers": [sample["resps"] for sample in results["samples"][task]],
        }
        for task, scores in results["results"].items()
    }
print(json.dumps(report))
"""


def reference(decoder, context, ids):
    """The summed log-probability of `ids` after the context, and whether greedy choice would have taken them."""
    import torch

    with torch.inference_mode():
        logprobs = decoder(torch.tensor([ids]))[0].float().log_softmax(-1)[len(context) - 1 : -1]
    chosen = torch.tensor(ids[len(context) :])
    return logprobs.gather(1, chosen[:, None]).sum().item(), bool((logprobs.argmax(-1) == chosen).all())


def test_the_harness_in_both_modes(tmp_path):
    pytest.importorskip("lm_eval")
    from kilonova.models.checkpoint import load_decoder
    from kilonova.models.registry import Registry
    from kilonova.text.tokenizer import Tokenizer

    tasks = tmp_path / "tasks"
    tasks.mkdir()
    data = tasks / "documents.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    for task in (SCORED, ROLLING, GENERATED):
        described = {**FROM_FILE, "dataset_kwargs": {"data_files": {"test": str(data)}}, **task}
        (tasks / f"{task['task']}.yaml").write_text(yaml.safe_dump(described))
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENAI_API_KEY": "local",
    }
    with run_server(tmp_path) as server:
        answered = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.url, str(tasks)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=280,
        )
        assert answered.returncode == 0, answered.stderr[-4000:]
        report = json.loads(answered.stdout.splitlines()[-1])

        entry = Registry().get("micro")
        tokenizer, decoder = Tokenizer.from_directory(entry.directory), load_decoder(entry.directory)
        plain, chat = report["local-completions"], report["local-chat-completions"]
        hits = 0
        for document, choices in zip(DOCUMENTS, plain["scored"]["answers"], strict=True):
            context = tokenizer.encode(document["question"])
            texts = [document["question"] + choice for choice in document["choices"]]
            expected = [reference(decoder, context, tokenizer.encode(text, allow_special=True)) for text in texts]
            hits += max(range(len(expected)), key=lambda index: expected[index][0]) == document["answer"]
            for ((logprob, greedy),), (expected_logprob, expected_greedy) in zip(choices, expected, strict=True):
                assert logprob == pytest.approx(expected_logprob, rel=0.01, abs=0.02)
                assert greedy == expected_greedy
        assert plain["scored"]["scores"]["acc,none"] == pytest.approx(hits / len(DOCUMENTS))
        end = tokenizer.token_text(tokenizer.eos_token_id)
        for document, ((logprob,),) in zip(DOCUMENTS, plain["rolling"]["answers"], strict=True):
            context = [tokenizer.eos_token_id]
            whole, _ = reference(decoder, context, [*context, *tokenizer.encode(document["question"])])
            assert logprob == pytest.approx(whole, rel=0.01, abs=0.02)
        for document, ((text,),) in zip(DOCUMENTS, plain["generated"]["answers"], strict=True):
            written = server.openai.completions.create(
                model="micro", prompt=document["question"], max_tokens=12, temperature=0, stop=["\n\n", end]
            )
            assert text == written.choices[0].text
        for document, ((text,),) in zip(DOCUMENTS, chat["generated"]["answers"], strict=True):
            message = {"role": "user", "content": document["question"]}
            said = server.openai.chat.completions.create(
                model="micro", messages=[message], max_tokens=12, temperature=0, stop=["\n\n"]
            )
            assert text == said.choices[0].message.content

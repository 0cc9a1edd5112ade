"""A small data pack with the layout of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard


def write_rows(root: Path, name: str, rows: list[dict]) -> None:
    """Writes one compressed JSON lines file of the pack."""
    path = root / f"{name}.jsonl.zst"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(zstandard.compress(text.encode()))


STORY_PAGES = [
    "Amina has a red ball. The ball is big and round.",
    "One day Amina throws the ball. It lands in the river.",
    "A boy named Kofi sees the ball. He swims to get it for Amina.",
    "Then Amina and Kofi play with the ball. They are happy.",
]
PARAGRAPH = (
    "A volcano is an opening in the crust of a planet that lets hot rock escape. The hot rock flows down the slope and "
    "slowly cools in the open air. Many volcanoes stand near the borders of large plates. Some of them have been quiet "
    "for thousands of years and are covered by forests. Others erupt often and change the land around them."
)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a few rows for every source of the mixture, and an `eval/` folder that must not be read."""
    root = tmp_path_factory.mktemp("pack")
    labels = ("card_arrival", "top_up_failed", "request_refund", "exchange_rate", "lost_or_stolen_phone", "pin_blocked",
              "age_limit", "cash_withdrawal_charge", "get_physical_card", "terminate_account")  # fmt: skip
    write_rows(
        root, "sft/sst2_train", [{"text": f"a very good film number {i}", "label": str(i % 2)} for i in range(40)]
    )
    for name in ("sft/sentence_polarity_train", "sft/movie_reviews_train"):
        write_rows(root, name, [{"text": f"it was film {i} .", "label": ("pos", "neg")[i % 2]} for i in range(40)])
    write_rows(root, "sft/subjectivity_train",
               [{"text": f"statement {i}", "label": ("subjective",
               "objective")[i % 2]} for i in range(20)])  # fmt: skip
    write_rows(root, "sft/trec_train",
               [{"text": f"How far is place {i} ?", "label": ("NUM:dist", "LOC:city",
               "HUM:ind")[i % 3]} for i in range(30)])  # fmt: skip
    write_rows(root, "sft/banking77_train",
               [{"text": f"my card question {i}", "category": labels[i % len(labels)]} for i in range(60)])  # fmt: skip
    write_rows(root, "sft/clinc150_train",
               [{"text": f"please do {i}", "intent": (*labels[:6], "oos")[i % 7],
               "split": "train"} for i in range(60)])  # fmt: skip
    write_rows(root, "sft/tatoeba_pairs_train",
               [{"lang": ("deu", "fra", "afr")[i % 3], "text": f"Satz {i}",
               "english": f"Sentence {i}"} for i in range(60)])  # fmt: skip
    write_rows(root, "sft/wikisplit_train", [{
        "source": f"The house {i} , which is old , stands near the river and it has a red roof .",
        "split": [f"The house {i} is old .",
        "It stands near the river and has a red roof ."]} for i in range(10)])  # fmt: skip
    write_rows(root, "sft/onestopenglish_train", [{
        "title": f"t{i}", "elementary": "Easy words here. " * 12, "intermediate": "Somewhat harder words here. " * 9,
        "advanced": "Considerably more demanding vocabulary here. " * 6} for i in range(4)])  # fmt: skip
    write_rows(root, "sft/instruction_induction_instructions", [
        {"task": "sum", "annotations": ["sum the numbers in the input"]}])  # fmt: skip
    write_rows(root, "sft/instruction_induction_train", [
        *({"task": "sum", "split": "train", "example": {"input": f"{i} 7", "output": str(i + 7)}} for i in range(10)),
        {"task": "sentiment", "split": "train", "example": {"input": "left out", "output": "positive"}},
        {"task": "cause_and_effect", "split": "train", "example": {"cause": "It rained.",
        "effect": "The road is wet."}},
    ])  # fmt: skip
    write_rows(root, "sft/gsm8k_train", [
        {"question": f"Tom has {i} pears and buys 3. How many?",
        "answer": f"{i}+3 = <<{i}+3={i + 3}>>{i + 3}\n#### {i + 3}"}
        for i in range(10)])  # fmt: skip
    write_rows(root, "sft/commonsenseqa_train", [{
        "answerKey": "C", "id": str(i), "question": {"stem": f"Where is item {i}?", "choices": [
            {"label": letter, "text": f"place {letter} {i}"} for letter in "ABCDE"]}} for i in range(20)])  # fmt: skip
    write_rows(root, "sft/chatterbot_corpus", [
        {"lang": "english", "topic": "trivia", "turns": ["What do bees make?", "Honey"]},
        {"lang": "english", "topic": "botprofile", "turns": ["Your name?", "Bot"]}])  # fmt: skip
    write_rows(root, "sft/lf_identity", [{"instruction": "hi", "input": "", "output": "I am {{name}} by {{author}}."}])
    write_rows(root, "sft/self_instruct_seed_tasks", [
        {"id": "s", "instruction": "Name a fruit.", "instances": [{"input": "", "output": "Apple"}]}])  # fmt: skip
    write_rows(root, "sft/lf_glaive_toolcall_en_demo", [{
        "conversations": [
            {"from": "human", "value": "Roll a die."}, {"from": "function_call",
            "value": '{"name": "roll", "arguments": {"sides": 6}}'},
            {"from": "observation", "value": '{"result": 4}'}, {"from": "gpt", "value": "You rolled a 4."}],
        "tools": '[{"name": "roll", "description": "Roll", "parameters": {"type": "object", "properties": {}}}]',
    }])  # fmt: skip
    write_rows(root, "sft/sgd_schemas", [{
        "split": "train", "service_name": "Weather_1", "description": "Weather",
        "slots": [{"name": n, "description": n, "is_categorical": False, "possible_values": []} for n in ("city",
        "date")],
        "intents": [{"name": "GetWeather", "description": "Get the weather of a place on a date",
        "is_transactional": False,
                     "required_slots": ["city"], "optional_slots": {"date": "dontcare"},
                     "result_slots": []}]}])  # fmt: skip
    write_rows(root, "sft/sgd_dialogues_train", [{
        "dialogue_id": str(i), "services": ["Weather_1"], "turns": [
            {"speaker": "USER", "text": f"Weather in Town{i}?",
             "state": {"Weather_1": {"intent": "GetWeather", "slots": {"city": f"Town{i}"}}}},
            {"speaker": "SYSTEM", "text": "It is 20 degrees.", "call": {"method": "GetWeather",
            "parameters": {"city": f"Town{i}"}},
             "results": [{"city": f"Town{i}", "temperature": "20"}]}]} for i in range(8)])  # fmt: skip
    fields = "\n".join((
        "Introduction: Background: An old land.", "Geography: Location: Northern Land, east of the sea",
        "Area: total : 20 sq km",
        "Elevation: highest point: Mount {0} 900 m", "Population: total: 1,{0}00 (2024 est.)",
        "Nationality: adjective: Landian", "Languages: Languages: Landish (official)",
        "Geography: Climate: mild; rainy",
        "Government: Government type: republic", "Country name: conventional short form: Landia {0}",
        "Capital: name: Port {0} (since 1900)", "Geography: Coastline: 7 km",
    ))  # fmt: skip
    write_rows(root, "text/world_factbook", [{"title": f"x/{i}.json", "text": fields.format(i)} for i in range(3)])
    write_rows(root, "text/tech_docs_en", [{
        "source": "github.com/tldr-pages/tldr@0",
        "text": "# tar\n\n> Archive files.\n\n- Create an archive:\n\n`tar cf {{a.tar}} {{file}}`\n"}])  # fmt: skip
    summary = "A volcano lets hot rock escape from the crust of a planet."
    module = f"## Volcanoes\n\n{PARAGRAPH}\n\n{PARAGRAPH}\n\n## Key Concepts and Summary\n\n{summary}"
    write_rows(
        root,
        "text/openstax_en_train",
        [{"title": f"Volcanoes {i}", "book": "geology", "text": module} for i in range(4)],
    )
    for name in ("text/books_en_train", "text/books_en_train_2"):
        text = "\n\n".join(f"Chapter part {i} begins. {PARAGRAPH}" for i in range(24))
        write_rows(root, name, [{"title": f"Book of {name[-1]}", "author": "Ann Author", "year": 1900, "text": text}])
    write_rows(root, "text/children_stories_multilingual", [
        {"lang": "en", "story_id": "1", "title": "The Ball", "pages": STORY_PAGES,
        "source": "github.com/global-asp/asp-source@0:en"},
        {"lang": "fr", "story_id": "1", "title": "Le ballon",
        "pages": [f"Une page avec un ballon rouge et rond, numéro {i}." for i in range(4)],
         "source": "github.com/global-asp/asp-source@0:fr"}])  # fmt: skip
    (root / "eval").mkdir()
    (root / "eval" / "sst2_dev.jsonl.zst").write_bytes(b"not to be read")
    (root / "text" / "books_en_val.jsonl.zst").write_bytes(b"not to be read")
    return root

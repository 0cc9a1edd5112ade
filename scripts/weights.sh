#!/usr/bin/env bash
# The whole run that makes the shipped weights of Micro, from text to scores: make weights DATA=dir
#
# DATA holds the files that the recipes name, in text/, sft/ and eval/ (docs/data.md). Everything made on the way lands
# in runs/micro. Run it again after an interruption: the training steps go on where they stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder of the training text (see docs/data.md)}"

# Vocabulary: 8192 byte-level tokens.
kilonova tokenizer train --recipe micro/tokenizer "data_root=$DATA"

# First stage, prose. The text becomes tokens on the way, once, in runs/micro/tokens.
kilonova train micro/pretrain "data.root=$DATA"

# Conversations made from public labelled data and programs, and the second stage on them.
kilonova data instruct "$DATA" --output runs/micro/instruct.jsonl --held-out runs/micro/instruct_val.jsonl \
  --report runs/micro/instruct_report.json
kilonova train micro/sft

# Measure, at the longest context the model was trained at, and write the card.
kilonova eval runs/micro/sft/model --data "$DATA" --context-length 1024 --output runs/micro/evals.json
kilonova models card runs/micro/sft/model --name "Kilonova Micro" --evaluation runs/micro/evals.json \
  --data-report runs/micro/instruct_report.json

# Ship: beside the model's own kilonova.toml, which stays as it is.
cp runs/micro/sft/model/* src/kilonova/weights/micro/

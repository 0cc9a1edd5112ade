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
kilonova data instruct "$DATA" --output runs/micro/instruct.jsonl --held-out runs/micro/instruct_val.jsonl
kilonova train micro/sft

# Measure.
kilonova eval runs/micro/sft/model --data "$DATA" --json >runs/micro/evals.json

# Ship: beside the model's own kilonova.toml, which stays as it is.
cp runs/micro/sft/model/* runs/micro/evals.json src/kilonova/weights/micro/

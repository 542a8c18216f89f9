#!/usr/bin/env bash
# What features pre-trained on real recordings are worth: an encoder pre-trained without labels on selfBACK's training subjects,
# probed on selfBACK's other subjects and, with one sensor, on USC-HAD; beside it the same encoder with random weights,
# hand-made features with a random forest, and a transformer from scratch; with all labels and 1, 5, 20 windows per activity.
#
#   benchmarks/real_probes.sh SELFBACK_FOLDER USCHAD_FOLDER OUT_FOLDER [selfpab-jax]
#
# About an hour and a half on 2 CPU cores; continues where it was when it is started again.
set -euo pipefail
selfback=$1 uschad=$2 out=$3 run=${4:-selfpab-jax}
mkdir -p "$out"
[ -d "$out/records" ] || "$run" records build --source recordings "$selfback" --out "$out/records" --sensors wrist,thigh \
  --segment_column segment --label_column label --window_seconds 60 --shift_seconds 10 --validation 0.15 --test 0.15

pretrained() { # name, further arguments
  [ -d "$out/$1" ] && return
  "$run" pretrain --config configs/selfback.yaml --data.path "$out/records" --run "$out/runs/$1" --resume "${@:2}"
  "$run" export "$out/runs/$1" "$out/$1"
}
pretrained two_sensors
pretrained one_sensor --task.kind cross_sensor

probed() { # name, model, further arguments
  "$run" probe --config configs/probe/selfback.yaml --model "$out/$2" --out "$out/$1" --overwrite "${@:3}"
}
probed probe_selfback two_sensors --data "$selfback"
probed probe_uschad one_sensor --data "$uschad" --dataset.name uschad --dataset.unseen_only false \
  --dataset.roles '{hip: thigh}' --finetuned false --baseline.training.steps 150 --baseline.training.few_label_steps 100

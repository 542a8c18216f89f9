#!/usr/bin/env bash
# Pre-training on real recordings with whole subjects held out: selfBACK (wrist and thigh) and USC-HAD (hip).
#
#   benchmarks/real_runs.sh SELFBACK_FOLDER USCHAD_FOLDER OUT
#
# SELFBACK_FOLDER: one Parquet file a subject with wrist_x .. thigh_z, label, segment; USCHAD_FOLDER: the original layout.
set -euo pipefail
selfback=$1 uschad=$2 out=$3
cd "$(dirname "$0")/.."
run() { echo "\$ selfpab-jax $*"; python -m selfpab_jax.cli.main "$@"; }
mkdir -p "$out"

run records build --source recordings "$selfback" --out "$out/selfback-records" --sensors wrist,thigh \
  --segment_column segment --label_column label --window_seconds 60 --shift_seconds 10 --validation 0.15 --test 0.15
time run pretrain --config configs/selfback.yaml --data.path "$out/selfback-records" --run "$out/selfback"
for split in validation test; do
  run evaluate "$out/selfback" --data "$out/selfback-records" --split $split --out "$out/selfback-$split"
done

python benchmarks/uschad_to_parquet.py "$uschad" "$out/uschad-tables"
run records build --source recordings "$out/uschad-tables" --out "$out/uschad-records" --sensors hip --rate 100 \
  --timestamp_column null --segment_column segment --label_column label --window_seconds 20 --shift_seconds 5 \
  --validation 0.15 --test 0.15
time run pretrain --config configs/selfback.yaml --data.path "$out/uschad-records" --run "$out/uschad" --optimizer.epochs 20
for split in validation test; do
  run evaluate "$out/uschad" --data "$out/uschad-records" --split $split --out "$out/uschad-$split"
done

#!/usr/bin/env bash
# A Cloud TPU slice without Kubernetes: create the machines, install, run the same command on all of them, delete them.
#
#   export ZONE=us-east5-b TYPE=v6e-16
#   launch/tpu_vm/tpu.sh create my-tpu --spot
#   launch/tpu_vm/tpu.sh install my-tpu 'selfpab-jax @ git+https://HOST/REPOSITORY'
#   launch/tpu_vm/tpu.sh run my-tpu selfpab-jax pretrain --config selfpab --data.path /mnt/records --run /mnt/run \
#     --resume --distributed.coordinator auto
#   launch/tpu_vm/tpu.sh stop my-tpu      # saves; also stops processes that a lost connection left behind
#   launch/tpu_vm/tpu.sh delete my-tpu
#
# ZONE, TYPE (accelerator type) and VERSION (runtime, from `gcloud compute tpus tpu-vm versions list`) come from the
# environment; the project from the configuration of gcloud. Records and run are on paths that every machine shares: a
# Filestore share, or a disk for the records; mount them on all machines with `run my-tpu sudo mount ...`.
# A spot slice can be taken away: create it again, mount, and repeat the run command; --resume continues.
set -euo pipefail

usage="usage: tpu.sh create NAME [gcloud options] | install NAME PACKAGE | run NAME COMMAND ... | stop NAME | delete NAME"
if (($# < 2)); then
  echo "$usage" >&2
  exit 2
fi
action=$1 name=$2
shift 2
zone=${ZONE:?set the zone, e.g. ZONE=us-east5-b}

on_all() { # on every machine of the slice at the same time
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $action in
  create)
    gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
      --accelerator-type="${TYPE:?set the slice, e.g. TYPE=v6e-16}" --version="${VERSION:-v2-alpha-tpuv6e}" "$@"
    ;;
  install)
    package=${1:?give what to install, e.g. a path on the machines or a git address}
    on_all "python3 -m venv ~/selfpab && ~/selfpab/bin/pip install --quiet $(printf %q "$package") 'jax[tpu]'"
    ;;
  run)
    if (($# == 0)); then
      echo "$usage" >&2
      exit 2
    fi
    # Overlaps the sum of gradients between slices with computation (MaxText sets both; not measured by this project).
    flags="--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true"
    on_all "export PATH=~/selfpab/bin:\$PATH LIBTPU_INIT_ARGS=\"$flags \${LIBTPU_INIT_ARGS:-}\"; exec $(printf '%q ' "$@")"
    ;;
  stop)
    on_all "pkill -TERM -f '[s]elfpab-jax'" # the brackets keep pkill from matching itself
    ;;
  delete)
    gcloud compute tpus tpu-vm delete "$name" --zone="$zone" "$@"
    ;;
  *)
    echo "$action: no such action; $usage" >&2
    exit 2
    ;;
esac

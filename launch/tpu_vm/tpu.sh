#!/usr/bin/env bash
# A slice of Cloud TPU without Kubernetes: make the machines, install, run the same command on all of them, delete them.
#
#   export ZONE=us-east5-b TYPE=v6e-16
#   launch/tpu_vm/tpu.sh create my-tpu --spot
#   launch/tpu_vm/tpu.sh install my-tpu 'selfpab-jax @ git+https://HOST/REPOSITORY'
#   launch/tpu_vm/tpu.sh run my-tpu selfpab-jax pretrain --config selfpab --data.path /mnt/records --run /mnt/run \
#     --resume --distributed.coordinator auto
#   launch/tpu_vm/tpu.sh stop my-tpu      # saves; also after a broken connection left the processes behind
#   launch/tpu_vm/tpu.sh delete my-tpu
#
# ZONE, TYPE (accelerator type) and VERSION (runtime, from `gcloud compute tpus tpu-vm versions list`) come from the
# environment; gcloud knows the project. Records and run lie where every machine finds them under the same path: a
# Filestore share, or a disk for the records; mount them on all machines with `run my-tpu sudo mount ...`.
# A spot slice can vanish: create it again, mount, and give the same run command; --resume goes on.
set -euo pipefail

usage="usage: tpu.sh create NAME [gcloud options] | install NAME PACKAGE | run NAME COMMAND ... | stop NAME | delete NAME"
if (($# < 2)); then
  echo "$usage" >&2
  exit 2
fi
action=$1 name=$2
shift 2
zone=${ZONE:?say which zone, e.g. ZONE=us-east5-b}

on_all() { # every machine of the slice runs it at the same time
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $action in
  create)
    gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
      --accelerator-type="${TYPE:?say which slice, e.g. TYPE=v6e-16}" --version="${VERSION:-v2-alpha-tpuv6e}" "$@"
    ;;
  install)
    package=${1:?say what to install, e.g. a path on the machines or a git address}
    on_all "python3 -m venv ~/selfpab && ~/selfpab/bin/pip install --quiet $(printf %q "$package") 'jax[tpu]'"
    ;;
  run)
    if (($# == 0)); then
      echo "$usage" >&2
      exit 2
    fi
    on_all "export PATH=~/selfpab/bin:\$PATH; exec $(printf '%q ' "$@")"
    ;;
  stop)
    on_all "pkill -TERM -f '[s]elfpab-jax'" # in brackets, so that it does not find itself
    ;;
  delete)
    gcloud compute tpus tpu-vm delete "$name" --zone="$zone" "$@"
    ;;
  *)
    echo "$action: no such action; $usage" >&2
    exit 2
    ;;
esac

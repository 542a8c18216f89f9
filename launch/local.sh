#!/usr/bin/env bash
# N processes of one run on this machine, each with a share of its CPUs or with its own GPU.
#
#   launch/local.sh -n 2 -- selfpab-jax pretrain --config configs/demo.yaml --data.path RECORDS --run RUN \
#     --resume --distributed.coordinator auto
#
#   -n N   processes (2)
#   -g     one GPU per process: process i gets the i-th of CUDA_VISIBLE_DEVICES, or GPU i
#   -r N   when one fails, restart all, up to N times (0); the command needs --resume
#   -k S   seconds between asking the others to stop and killing them (10)
#
# SIGTERM and Ctrl-C are passed to all of them: they save together and exit with code 75, and so does this script.
# One process per GPU is useful on several machines; on one machine a single process can use all GPUs.
set -uo pipefail

processes=2 one_gpu='' restarts=0 grace=10
exec 3>&2
complain() { echo "local.sh: $*" >&3; }
while getopts ':n:gr:k:h' option; do
  case $option in
    n) processes=$OPTARG ;;
    g) one_gpu=yes ;;
    r) restarts=$OPTARG ;;
    k) grace=$OPTARG ;;
    h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) complain "-$OPTARG: no such option, or its number is missing (see -h)"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
for number in "$processes" "$restarts" "$grace"; do
  [[ $number =~ ^[0-9]+$ ]] || { complain "$number is not a number"; exit 2; }
done
if ((processes == 0 || $# == 0)); then
  complain "usage: local.sh [-n N] [-g] [-r N] [-k S] -- COMMAND ..."
  exit 2
fi

gpus=()
if [[ $one_gpu ]]; then
  if [[ ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
  else
    for device in /dev/nvidia[0-9]*; do
      [[ -e $device ]] && gpus+=("${device#/dev/nvidia}")
    done
  fi
  ((${#gpus[@]} >= processes)) || { complain "-g: $processes processes, but ${#gpus[@]} GPUs"; exit 2; }
fi

free_port() { # one that nothing listens on
  local port
  while port=$((20000 + RANDOM % 12000)) && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

declare -A alive=()  # process id of each that runs
stop_requested=''   # a signal came
stop() { ((${#alive[@]})) && kill -s "$1" "${alive[@]}" 2>/dev/null; }
trap 'stop_requested=yes; complain "stopping: passing the signal on to all processes"; stop TERM' TERM INT HUP

start() {
  local i port
  port=$(free_port)
  for ((i = 0; i < processes; i++)); do
    (
      # Read by --distributed.coordinator auto.
      export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$processes JAX_PROCESS_ID=$i
      if [[ $one_gpu ]]; then
        export CUDA_VISIBLE_DEVICES=${gpus[i]}
        # XLA exits on a flag that it does not know: checked with JAX 0.10.
        export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
      fi
      exec "$@"
    ) &
    alive[$i]=$!
  done
}

watch() { # until all have exited; returns the code of the first that failed, else 75 if one was stopped, else 0
  local i code failed=0 stopped=0 deadline=''
  while ((${#alive[@]})); do
    for i in "${!alive[@]}"; do
      kill -0 "${alive[$i]}" 2>/dev/null && continue
      wait "${alive[$i]}"
      code=$?
      unset "alive[$i]"
      if ((code == 75)); then
        stopped=75
      elif ((code != 0 && failed == 0)); then
        failed=$code
        ((${#alive[@]})) && complain "process $i exited with code $code; stopping the others, which cannot continue without it"
        stop TERM
        deadline=$((SECONDS + grace))
      fi
    done
    if [[ $deadline ]] && ((SECONDS >= deadline)); then
      stop KILL
    fi
    sleep 0.2
  done
  return $((failed ? failed : stopped))
}

for ((restart = 0; ; restart++)); do
  start "$@"
  watch 2>/dev/null # bash's own reports of killed jobs
  code=$?
  # 2 is a mistake in the call: it would only happen again.
  if ((code == 0 || code == 75 || code == 2 || restart >= restarts)) || [[ $stop_requested ]]; then
    exit "$code"
  fi
  complain "exited with code $code; restarting ($((restart + 1)) of $restarts)"
done

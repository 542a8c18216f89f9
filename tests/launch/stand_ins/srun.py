"""srun, as far as the scripts use it: tasks with Slurm's environment, killed at SIGTERM, the highest code."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

options = []
words = sys.argv[1:]
while words and words[0].startswith("-"):
    options.append(words.pop(0))
grace = next((float(option.partition("=")[2]) for option in options if option.startswith("--wait=")), None)

counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_TASKS_PER_NODE"])
places = [
    (node, local)
    for node, tasks in enumerate(int(tasks) for tasks, nodes in counts for _ in range(int(nodes or 1)))
    for local in range(tasks)
]
tasks = [
    subprocess.Popen(
        words,
        env={
            **os.environ,
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NODELIST": os.environ["SLURM_JOB_NODELIST"],
            "SLURM_STEP_TASKS_PER_NODE": os.environ["SLURM_TASKS_PER_NODE"],
            "SLURM_STEP_NUM_TASKS": str(len(places)),
            "SLURM_NTASKS": str(len(places)),
            "SLURM_PROCID": str(number),
            "SLURM_NODEID": str(node),
            "SLURM_LOCALID": str(local),
        },
    )
    for number, (node, local) in enumerate(places)
]
Path(f"{os.environ['STAND_IN_QUEUE']}.tasks").write_text(" ".join(str(task.pid) for task in tasks))
for number in (signal.SIGTERM, signal.SIGHUP):  # srun does not hand these on: it "forces job termination"
    signal.signal(number, lambda number, _: [task.kill() for task in tasks if task.poll() is None])

first_end = None
while any(task.poll() is None for task in tasks):
    if first_end is None and any(task.poll() is not None for task in tasks):
        first_end = time.monotonic()
    if grace and first_end and time.monotonic() > first_end + grace:
        for task in tasks:
            task.kill()
    time.sleep(0.05)
codes = [task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks]
print("srun:", *options, codes, file=sys.stderr)
sys.exit(max(codes))

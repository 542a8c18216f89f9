"""scontrol, as far as the scripts use it: `scontrol requeue JOB` is noted for the test, which starts the job again."""

import os
import sys
from pathlib import Path

action, job = sys.argv[1:]
assert action == "requeue"
assert job == os.environ["SLURM_JOB_ID"]
with Path(os.environ["STAND_IN_QUEUE"]).open("a") as queue:
    print(job, file=queue)

"""scancel, as far as the scripts use it: a signal to the tasks of the job's steps, not to its script."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

assert sys.argv[1:] == ["--signal=TERM", os.environ["SLURM_JOB_ID"]]
for task in Path(f"{os.environ['STAND_IN_QUEUE']}.tasks").read_text().split():
    with suppress(ProcessLookupError):
        os.kill(int(task), signal.SIGTERM)

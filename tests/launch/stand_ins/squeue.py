"""squeue, as far as the scripts use it: the state of the job."""

import os
import sys

assert sorted(sys.argv[1:]) == ["--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}", "--noheader"]
print(os.environ.get("STAND_IN_STATE", "RUNNING"))

"""gcloud, as far as the script uses it: notes its words; `ssh --worker=all` runs them as two machines would."""

import json
import os
import subprocess
import sys
from pathlib import Path

words = sys.argv[1:]
with Path(os.environ["STAND_IN_NOTES"]).open("a") as notes:
    print(json.dumps(words), file=notes)
if "ssh" in words:
    assert "--worker=all" in words
    command = next(word.removeprefix("--command=") for word in words if word.startswith("--command="))
    machines = [subprocess.Popen(["bash", "-c", command], env={**os.environ, "MACHINE": str(i)}) for i in range(2)]
    sys.exit(max(machine.wait() for machine in machines))

"""A hash of source files: what was computed by other code is not what is wanted."""

import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
ENCODING = (
    "model",
    "signal",
    "pretrained.py",
    "probe/branches.py",
    "probe/extract.py",
    "probe/surroundings.py",
    "probe/windows.py",
)
"""Code that frozen features depend on."""
TRAINING = (*ENCODING, "probe/baselines", "probe/finetune.py", "probe/folds.py", "train/optimiser.py")
"""Code that baselines and fine-tuning depend on."""


@cache
def code_version(parts: tuple[str, ...]) -> str:
    """The hash of these files, and of the Python files in these folders, of the package as it is installed."""
    digest = hashlib.sha256()
    for part in parts:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(PACKAGE)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

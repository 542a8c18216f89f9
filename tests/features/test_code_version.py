"""Features and baselines of other code have another key."""

from pathlib import Path

import pytest

from selfpab_jax.features import cache as module
from selfpab_jax.features.cache import ENCODING, PACKAGE, TRAINING, code_version


def test_every_source_exists() -> None:
    assert all((PACKAGE / part).exists() for part in TRAINING)


def test_any_change_of_the_code_changes_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ENCODING:
        path = tmp_path / part
        path = path if part.endswith(".py") else path / "inner.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one = 1\n")
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    seen = set()
    for number, part in enumerate(("prefetch.py", "model/inner.py", "features/extract.py")):
        (tmp_path / part).write_text(f"one = {number + 2}\n")
        code_version.cache_clear()
        seen.add(code_version(ENCODING))
    assert len(seen) == 3
    code_version.cache_clear()

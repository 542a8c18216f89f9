"""A sweep with a trunk: branches wait for it, are measured at their ends, and are the points of the fits."""

from pathlib import Path

import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.scaling.sweep.collect import collect
from selfpab_jax.scaling.sweep.manifest import open_sweep
from selfpab_jax.scaling.sweep.result import read_result

SWEEP = """
base: demo
length: {steps: [5, 10], trunk: true, cooldown: 0.4}
overrides:
  model: {width: 16, heads: 2, feedforward: 16, layers: 1, compute: float32}
  optimizer: {batch_size: 8, schedule: wsd, warmup_steps: 2}
  validation: {every_steps: 5, patience: 0}
grids: [{seed: 0}]
"""


@pytest.mark.slow
def test_branches_follow_their_trunk(
    tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cli: list[str]
) -> None:
    (tmp_path / "budgets.yaml").write_text(SWEEP)
    folder = str(tmp_path / "sweep")
    call = ["sweep", "plan", str(tmp_path / "budgets.yaml"), "--out", folder, "--data.path", str(tiny_records)]
    assert main(call) == 0
    assert "what branches share with their trunks is counted once" in capsys.readouterr().out
    assert main(["sweep", "run", folder, "--name", "n5-s0"]) == 1
    assert "n5-s0 waits for step 3 of trunk-s0" in capsys.readouterr().err
    assert main(["sweep", "run", folder, "--all"]) == 0
    sweep = open_sweep(Path(folder))
    results = {line.name: read_result(sweep.run(line)) for line in sweep.lines}
    assert {name: result and result.steps for name, result in results.items()} == {
        "trunk-s0": 6,
        "n5-s0": 5,
        "n10-s0": 10,
    }
    points = collect(Path(folder))
    assert [point.run for point in points] == ["n5-s0", "n10-s0"]
    assert points[1].flops == pytest.approx(2 * points[0].flops), "of the whole path"
    # Planned again, all of it is done.
    assert main(call) == 0
    assert main(["sweep", "run", folder, "--all"]) == 0

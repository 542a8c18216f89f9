"""The same shards as an Apache Beam pipeline, for Flink, Spark or Dataflow (extra `beam`)."""

from pathlib import Path

from selfpab_jax.data.records.shards import build_shard
from selfpab_jax.data.records.spec import Plan, Shard
from selfpab_jax.errors import DataError


def build_shards_with_beam(
    plan: Plan, folder: Path, shards: list[Shard], strict: bool, options: tuple[str, ...]
) -> None:
    """Builds the shards with one Beam element each.

    The recordings and the staging folder must lie where every Beam worker sees them under the same path.

    Args:
        plan, folder, shards, strict: as `build_shard` takes them.
        options: Beam's own, e.g. `--runner=FlinkRunner`; without any, Beam's DirectRunner.

    Raises:
        DataError: apache-beam is not installed.
    """
    try:
        import apache_beam as beam  # type: ignore[import-not-found]
        from apache_beam.options.pipeline_options import PipelineOptions  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("--beam needs Apache Beam: pip install 'selfpab-jax[beam]'") from None
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(shards)
            | "spread" >> beam.Reshuffle()
            | "build" >> beam.Map(_build, plan, folder, strict)
        )


def _build(shard: Shard, plan: Plan, folder: Path, strict: bool) -> int:
    return build_shard(plan, folder, shard, strict)

"""Shards built by an Apache Beam pipeline, for Flink, Spark or Dataflow (extra `beam`)."""

from pathlib import Path

from selfpab_jax.data.records.shards import build_shard
from selfpab_jax.data.records.spec import BuildSpec, Shard
from selfpab_jax.errors import DataError


def build_shards_with_beam(
    spec: BuildSpec, folder: Path, shards: list[Shard], strict: bool, options: tuple[str, ...]
) -> None:
    """Build the shards with one Beam element each.

    Every Beam worker must see the recordings and the staging folder under the same path.

    Args:
        spec, folder, shards, strict: as `build_shard` takes them.
        options: options of Beam, e.g. `--runner=FlinkRunner`; without any, Beam's DirectRunner.

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
            | "build" >> beam.Map(_build, spec, folder, strict)
        )


def _build(shard: Shard, spec: BuildSpec, folder: Path, strict: bool) -> int:
    return build_shard(spec, folder, shard, strict)

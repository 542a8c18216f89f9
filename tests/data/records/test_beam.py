import pytest

from selfpab_jax.data.records.build import Runner, build_spec


def test_beam_writes_the_same_bytes(records, cohort, spec_of, tmp_path, contents):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    build_spec(spec_of(cohort), tmp_path, Runner(beam_options=("--runner=DirectRunner",)))
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)


def test_without_beam_the_error_names_the_extra(cohort, spec_of, tmp_path):
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        from selfpab_jax.errors import DataError

        with pytest.raises(DataError, match="pip install"):
            build_spec(spec_of(cohort), tmp_path, Runner(beam_options=()))
    else:
        pytest.skip("the extra `beam` is installed")

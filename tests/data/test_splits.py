import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.data.splits import TEST, TRAIN, VALIDATION, SplitSettings, assign, assign_subjects
from selfpab_jax.errors import ConfigError, DataError

SUBJECTS = [f"S{i:02d}" for i in range(20)]


@settings(deadline=None)
@given(count=st.integers(3, 200), validation=st.floats(0, 0.4), test=st.floats(0, 0.4), seed=st.integers(0, 99))
def test_fractions_are_met(count, validation, test, seed):
    keys = np.random.default_rng(seed).integers(0, 2**63, count).astype(np.uint64)
    validations, tests = (max(1, round(share * count)) if share else 0 for share in (validation, test))
    if validations + tests >= count:
        with pytest.raises(DataError, match="cannot be split"):
            assign(keys, validation, test, "files", of=count)
        return
    splits = assign(keys, validation, test, "files", of=count)
    assert (splits == VALIDATION).sum() == validations
    assert (splits == TEST).sum() == tests
    assert (splits == TRAIN).any()


def test_subjects_can_be_named():
    splits = assign_subjects(SUBJECTS, SplitSettings(validation_subjects=("S03",), test=0.1))
    assert splits["S03"] == VALIDATION
    assert sorted(splits.values()) == [TRAIN] * 17 + [VALIDATION] + [TEST] * 2
    with pytest.raises(DataError, match="did you mean 'S03'"):
        assign_subjects(SUBJECTS, SplitSettings(test_subjects=("S03 ",)))


def test_a_draw_depends_on_seed_and_name_alone():
    first = assign_subjects(SUBJECTS, SplitSettings(seed=1))
    assert first == assign_subjects(SUBJECTS, SplitSettings(seed=1))
    assert first != assign_subjects(SUBJECTS, SplitSettings(seed=2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"validation": 1.0},
        {"validation": -0.1},
        {"validation": 0.5, "test": 0.5},
        {"by": "recording", "test_subjects": ("a",)},
        {"validation_subjects": ("a",), "test_subjects": ("a",)},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        SplitSettings(**wrong)


def test_too_few_to_split():
    with pytest.raises(DataError, match="--split_by recording"):
        assign_subjects(["only"], SplitSettings())

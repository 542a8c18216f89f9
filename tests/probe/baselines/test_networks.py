"""Networks trained from scratch: they learn, look at nothing they may not see, and are compiled once."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import Dense
from selfpab_jax.probe.baselines import BASELINES, BaselineSettings, TrainingSettings
from selfpab_jax.probe.baselines.batches import InputKind, InputSpec, class_weights, present_macro_f1, rows_of
from selfpab_jax.probe.baselines.networks import (
    CNNConfig,
    DeepConvLSTMConfig,
    LSTMConfig,
    TransformerConfig,
    lstm,
    run_lstm,
)
from selfpab_jax.probe.baselines.training import (
    CompiledNetwork,
    NetworkConfig,
    StepRates,
    compiled,
    fit_predict_network,
)
from selfpab_jax.probe.budgets import choose_windows
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold, leave_one_subject_out

TINY = ModelSettings(width=24, heads=2, feedforward=32, layers=1, dropout=0.1, compute="float32")
SETTINGS = BaselineSettings(
    training=TrainingSettings(
        batch_size=4, steps=100, check_every=25, patience=2, warmup_steps=10, averaging=0.9, learning_rate=1e-2
    ),
    transformer=TINY,
    hidden=None,
)
SHORT = replace(SETTINGS, training=replace(SETTINGS.training, steps=4, check_every=2, learning_rate=1e-2))
NETWORKS: dict[str, tuple[NetworkConfig, InputKind]] = {
    "transformer": (TransformerConfig(model=TINY, hidden=None), "frames"),
    "lstm": (LSTMConfig(units=16, layers=1), "signal"),
    "cnn": (CNNConfig(filters=8, dilations=(1, 3)), "signal"),
    "deepconvlstm": (DeepConvLSTMConfig(filters=4, units=12, dropout=0.1), "signal"),
}
SIGNAL, FRAMES = InputSpec(6, 4, 50, 25), InputSpec(156, 4, 1, 1)


@pytest.fixture(scope="module")
def fold(corpus: Corpus) -> Fold:
    return leave_one_subject_out(corpus.subjects).folds[0]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("transformer", marks=pytest.mark.slow),
        pytest.param("cnn", marks=pytest.mark.slow),
        "lstm",
        pytest.param("deepconvlstm", marks=pytest.mark.slow),
    ],
)
def test_network_learns_activities_and_predicts_every_row_of_the_test_subject(name: str, corpus: Corpus, fold: Fold):
    lines: list[str] = []
    answer = fit_predict_network(*NETWORKS[name], corpus, fold, SETTINGS, 0, None, lines.append)
    test_R = rows_of(corpus, fold.test)
    assert answer.probabilities_RxY.shape == (test_R.sum(), 4)
    np.testing.assert_allclose(answer.probabilities_RxY.sum(1), 1, rtol=1e-5)
    assert present_macro_f1(corpus.label_R[test_R], answer.probabilities_RxY.argmax(1)) > 0.8
    assert answer.description["stopping"] == "inner validation"
    assert answer.description["steps"] in (25, 50, 75, 100)
    assert 0 < answer.description["validation_macro_f1"] <= 1
    assert any("validation macro-F1" in line for line in lines)


def test_every_baseline_is_found_by_its_name():
    assert set(BASELINES) == {"transformer", "deepconvlstm", "cnn", "lstm_spectrogram", "lstm_signal", "forest"}


def test_the_step_is_compiled_once_for_folds_seeds_and_budgets(corpus: Corpus):
    config, kind = NETWORKS["lstm"]
    network: Any = compiled(config, SIGNAL)
    assert compiled(replace(config), InputSpec(*SIGNAL)) is network
    folds = leave_one_subject_out(corpus.subjects).folds
    for seed, fold in enumerate(folds[:2]):
        mask_R = choose_windows(corpus, fold.train, 2, None, seed)[0] if seed else None
        fit_predict_network(config, kind, corpus, fold, SHORT, seed, mask_R)
    assert network.step._cache_size() == network.predict._cache_size() == 1


@pytest.mark.slow
def test_labels_outside_of_mask_and_training_subjects_are_never_looked_at(corpus: Corpus, fold: Fold):
    mask_R, _ = choose_windows(corpus, fold.train, 2, None, 0)
    seen = {(r, f) for r, f in zip(corpus.recording_R[mask_R], corpus.frame_R[mask_R], strict=True)}
    other_labels = tuple(
        np.array([label if (r, f) in seen else (label + 1) % 4 for f, label in enumerate(labels_T)], np.int16)
        for r, labels_T in enumerate(corpus.frame_labels)
    )
    other = replace(corpus, frame_labels=other_labels)
    assert (other.label_R != corpus.label_R).mean() > 0.5
    for name in ("transformer", "forest"):
        first = BASELINES[name](corpus, fold, SHORT, 0, mask_R)
        second = BASELINES[name](other, fold, SHORT, 0, mask_R)
        np.testing.assert_array_equal(first.probabilities_RxY, second.probabilities_RxY)


def test_inputs_are_standardized_without_the_test_subjects(corpus: Corpus):
    both = Fold("both", ("s0", "s3"), ("s1", "s2"))
    louder = tuple(
        replace(recording, signal_NxC=recording.signal_NxC * 5) if recording.subject == "s0" else recording
        for recording in corpus.recordings
    )
    first, second = (
        BASELINES["transformer"](of, both, SHORT, 0).probabilities_RxY
        for of in (corpus, replace(corpus, recordings=louder))
    )
    of_s3 = rows_of(corpus, ("s3",))[rows_of(corpus, both.test)]
    np.testing.assert_array_equal(first[of_s3], second[of_s3])
    assert not np.allclose(first[~of_s3], second[~of_s3])


def test_too_few_labels_to_validate_train_a_fixed_number_of_steps_and_report_it(corpus: Corpus, fold: Fold):
    mask_R, _ = choose_windows(corpus, fold.train, 1, None, 0)
    settings = replace(SHORT, training=replace(SHORT.training, few_label_steps=3))
    description = BASELINES["transformer"](corpus, fold, settings, 0, mask_R).description
    assert description["stopping"] == "fixed number of steps"
    assert description["steps"] == 3
    assert description["validation"] == "none: too few labels"
    one = Fold("one", ("s0",), ("s1",))
    description = BASELINES["transformer"](corpus, one, SHORT, 0).description
    assert description["steps"] == 4
    assert description["validation"] == "none: one training subject"


def test_training_stops_when_validation_no_longer_improves(corpus: Corpus, fold: Fold):
    still = replace(SETTINGS.training, steps=1000, check_every=5, patience=2, learning_rate=1e-12, refit=False)
    lines: list[str] = []
    network = NETWORKS["transformer"]
    result = fit_predict_network(*network, corpus, fold, replace(SETTINGS, training=still), 0, None, lines.append)
    assert result.description["steps"] == 5
    assert len(lines) == 3


def test_windows_of_several_lengths_give_every_row_what_its_window_alone_gives(corpus: Corpus, fold: Fold):
    windows = corpus.windows
    last = np.flatnonzero(windows.recording_W == 0)[-1]
    shorter = replace(windows, length_W=np.where(np.arange(len(windows.length_W)) == last, 8, windows.length_W))
    mixed = replace(corpus, windows=shorter)
    first, second = (BASELINES["transformer"](of, fold, SHORT, 0).probabilities_RxY for of in (corpus, mixed))
    assert len(second) == rows_of(mixed, fold.test).sum() < len(first)
    before = int(corpus.rows_of_windows[:last].sum())
    np.testing.assert_allclose(second[:before], first[:before], rtol=1e-5)
    network: Any = compiled(NETWORKS["transformer"][0], FRAMES)
    assert second[before:].shape == (8, 4)
    assert network.predict._cache_size() == 2


@dataclass(frozen=True)
class Linear(NetworkConfig):
    """One dense layer: cheap to compile."""

    def build(self, inputs: InputSpec, rngs: nnx.Rngs) -> Any:
        class Model(nnx.Module):
            def __init__(self):
                self.classify = Dense(inputs.features, inputs.classes, (None, None), "float32", rngs)

            def __call__(self, x, keys_B, valid_B=None):
                return self.classify(x)

        return Model()


def test_the_step_is_adamw_on_the_mean_cross_entropy_of_weighted_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 5)).astype(np.float32)
    labels, weights = rng.integers(0, 3, (4, 6)), rng.integers(0, 2, (4, 6)).astype(np.float32)
    network = CompiledNetwork(Linear(), InputSpec(5, 3, 1, 1))
    state = network.initialize(3)
    kernel, bias = state.parameters["classify.kernel"], state.parameters["classify.bias"]
    expected: Any = {"kernel": jnp.copy(kernel), "bias": jnp.copy(bias)}

    def loss_of(p):
        logits = jnp.einsum("btx,xy->bty", x, p["kernel"], precision="highest") + p["bias"]
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return (errors * weights).sum() / weights.sum()

    reference = optax.adamw(1e-2, 0.9, 0.98, weight_decay=0.1)
    moments = reference.init(expected)
    rates = StepRates(*(jnp.float32(value) for value in (1e-2, 0.1, jnp.inf, 0.0)))
    for number in range(3):
        state, loss = network.step(state, x, np.eye(3, dtype=np.float32)[labels], weights, None, rates, 0, number)
        with jax.numpy_dtype_promotion("standard"):
            value, gradient = jax.value_and_grad(loss_of)(expected)
            change, moments = reference.update(gradient, moments, expected)
            expected = optax.apply_updates(expected, change)
        assert float(loss) == pytest.approx(float(value), rel=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(state.parameters[f"classify.{name}"], value, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(state.average[f"classify.{name}"], state.parameters[f"classify.{name}"])


def test_lstm_is_torchs():
    torch = pytest.importorskip("torch", reason="the extra `convert` is not installed")
    forward, backward = lstm(7, 5, nnx.Rngs(params=0)), lstm(7, 5, nnx.Rngs(params=0), reverse=True)
    other = torch.nn.LSTM(7, 5, batch_first=True)
    with torch.no_grad():
        other.weight_ih_l0.copy_(torch.tensor(np.array(forward.cell.dense_i.kernel[...].T)))
        other.weight_hh_l0.copy_(torch.tensor(np.array(forward.cell.dense_h.kernel[...].T)))
        other.bias_ih_l0.copy_(torch.tensor(np.array(forward.cell.dense_h.bias[...])))
        other.bias_hh_l0.zero_()
    np.testing.assert_array_equal(forward.cell.dense_h.bias[...], np.repeat([0, 1, 0, 0], 5))  # forget gates
    x = np.random.default_rng(0).normal(size=(2, 9, 7)).astype(np.float32)
    expected = other(torch.tensor(x))[0].detach().numpy()
    np.testing.assert_allclose(run_lstm(forward, jnp.asarray(x)), expected, atol=1e-5)
    np.testing.assert_allclose(run_lstm(backward, jnp.asarray(x[:, ::-1])), expected[:, ::-1], atol=1e-5)


def test_balanced_class_weights_give_every_class_the_same_sum():
    labels = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(class_weights(labels, 3, balanced=True), [2 / 3, 0, 2], rtol=1e-6)
    np.testing.assert_array_equal(class_weights(labels, 3, balanced=False), [1, 0, 1])

"""Fine-tuning: what is frozen stays, what is not is trained, and the given encoder is not modified."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from selfpab_jax.data.sources.segments import cut
from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.sensors import SensorEncoder, sensor_encoders
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig
from selfpab_jax.probe.baselines.batches import network_inputs, present_macro_f1, rows_of
from selfpab_jax.probe.budgets import choose_windows
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.finetune import FinetunedEncoder, FinetuneSettings, finetune, fit_predict_finetuned
from selfpab_jax.probe.splits import Fold
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

FOLD = Fold("s0", ("s0",), ("s1", "s2", "s3"))
FEW = FinetuneSettings(steps=4, batch_size=4, learning_rate=1e-2, hidden=12)


def encoder_for(corpus: Corpus, family: str) -> PretrainedEncoder:
    sensors = ("back", "thigh")
    features = 156 if family == "selfpab" else 78
    config = ModelConfig(
        family=family,
        model=ModelSettings(width=16, heads=2, feedforward=24, layers=1, dropout=0.1, compute="float32"),
        features=features,
        outputs=features,
        channels=corpus.channels,
        sensors=sensors,
        spectrogram=SpectrogramSettings(),
        frames=20,
    )
    values = network_inputs(corpus, "frames").values_NxX
    statistics = Statistics(values.mean(0), values.std(0), "plain")
    parameters = jax.jit(make_functional(config.model, features, features).initialize)(jax.random.key(7))
    return PretrainedEncoder(config, parameters, statistics, None if family == "selfpab" else "back")


@pytest.fixture(scope="module")
def encoders(corpus: Corpus) -> tuple[SensorEncoder, ...]:
    return sensor_encoders(encoder_for(corpus, "selfpab"), corpus.channels)


def same(trained: FinetunedEncoder, given: SensorEncoder) -> list[bool]:
    pairs = {f"encoder.0.{name[8:]}": value for name, value in given.encoder.parameters.items() if "encoder" in name}
    assert set(pairs) == {name for name in trained.parameters if name.startswith("encoder.")}
    return [np.array_equal(trained.parameters[name], value) for name, value in pairs.items()]


@pytest.mark.slow
def test_encoder_and_head_learn_activities_and_predict_every_row_of_the_test_subject(corpus: Corpus, encoders):
    settings = FinetuneSettings(steps=80, batch_size=4, learning_rate=5e-3, hidden=12, random_starts=True)
    lines: list[str] = []
    answer = fit_predict_finetuned(corpus, FOLD, encoders, settings, 0, progress=lines.append)
    test_R = rows_of(corpus, FOLD.test)
    assert answer.probabilities_RxY.shape == (test_R.sum(), 4)
    assert present_macro_f1(corpus.label_R[test_R], answer.probabilities_RxY.argmax(1)) > 0.8
    assert answer.description["unfrozen_from_step"] == 60
    assert "(head)" in lines[0]
    assert "(encoder and head)" in lines[-1]


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_was_and_its_features_are_what_the_head_reads(corpus: Corpus, encoders):
    trained = finetune(corpus, FOLD, encoders, replace(FEW, frozen_share=1.0), 0)
    assert all(same(trained, encoders[0]))
    x_BxTxX = trained.inputs.windows(np.array([0]), np.array([20]), 20)
    h = encoders[0].encoder.encode(x_BxTxX, normalized=True)
    p = {name: np.asarray(value) for name, value in trained.parameters.items()}
    hidden = np.maximum(h @ p["head.expand.kernel"] + p["head.expand.bias"], 0)
    logits = hidden @ p["head.classify.kernel"] + p["head.classify.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(trained.predict(("s0",))[20:40], expected[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_once_unfrozen_the_encoder_is_trained_and_the_given_one_can_be_used_again(corpus: Corpus, encoders):
    trained = finetune(corpus, FOLD, encoders, replace(FEW, frozen_share=0.5), 0)
    assert not any(same(trained, encoders[0]))
    again = finetune(corpus, FOLD, encoders, replace(FEW, frozen_share=0.5), 0)
    for name, value in trained.parameters.items():
        np.testing.assert_array_equal(value, again.parameters[name])
    other = finetune(corpus, FOLD, encoders, replace(FEW, frozen_share=0.5), 1)
    assert not np.array_equal(trained.predict(("s0",)), other.predict(("s0",)))


def test_random_weights_are_drawn_by_the_seed(corpus: Corpus, encoders):
    frozen = replace(FEW, frozen_share=1.0, random_weights=True)
    trained = finetune(corpus, FOLD, encoders, frozen, 0)
    kernel = trained.parameters["encoder.0.embed.kernel"]
    assert not np.array_equal(kernel, encoders[0].encoder.parameters["encoder.embed.kernel"])
    drawn = [finetune(corpus, FOLD, encoders, replace(frozen, steps=1), seed) for seed in (0, 1)]
    np.testing.assert_array_equal(kernel, drawn[0].parameters["encoder.0.embed.kernel"])
    assert not np.array_equal(kernel, drawn[1].parameters["encoder.0.embed.kernel"])


@pytest.mark.slow
def test_an_encoder_for_each_sensor_is_merged(corpus: Corpus):
    encoders = sensor_encoders(encoder_for(corpus, "monoselfpab"), corpus.channels)
    with pytest.raises(ConfigError, match="merge"):
        finetune(corpus, FOLD, encoders, FEW, 0)
    trained = finetune(corpus, FOLD, encoders, replace(FEW, merge="concatenate", frozen_share=1.0), 0)
    assert trained.parameters["head.expand.kernel"].shape == (32, 12)
    assert trained.predict(("s0",)).shape == (300, 4)
    assert {f"encoder.{i}.embed.kernel" for i in (0, 1)} < set(trained.parameters)


def test_whole_recordings_are_predicted_as_if_they_were_alone(make_corpus, synthetic, encoders):
    source = synthetic(seconds=20, damage={"s0": lambda recording: [cut(recording, 0, 820)]})
    corpus = make_corpus(source, whole=True, labels="densities")
    assert corpus.windows.length_W.tolist() == [40, 40, 40, 40]
    assert corpus.frame_counts.tolist() == [33, 40, 40, 40]
    trained = finetune(corpus, FOLD, encoders, replace(FEW, batch_size=1, steps=3), 0)
    assert trained.description["batch_size"] == 1
    x_1xTxX = trained.inputs.windows(np.array([0]), np.array([0]), 33)
    expected = trained.network.predict(trained.parameters, x_1xTxX)[0]
    np.testing.assert_allclose(trained.predict(("s0",)), expected, rtol=1e-5, atol=1e-6)
    padded = trained.inputs.windows(np.array([0]), np.array([0]), 40)
    assert not np.allclose(trained.network.predict(trained.parameters, padded)[0, :33], expected, atol=1e-4)


def test_steps_follow_from_epochs_and_the_rate_falls_as_the_originals(corpus: Corpus, encoders, golden):
    expected = np.load(golden / "learning_rates.npz")["ExponentialTFDecay"]
    peak = float(expected[0])
    rates = [float(FinetuneSettings(learning_rate=peak).rates(n).learning_rate) for n in range(len(expected))]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    mask_R, _ = choose_windows(corpus, FOLD.train, 1, None, 0)
    description = finetune(
        corpus, FOLD, encoders, replace(FEW, steps=None, epochs=2, batch_size=100), 0, mask_R
    ).description
    assert (description["batch_size"], description["steps"], description["unfrozen_from_step"]) == (4, 2, 2)


def test_what_does_not_fit_is_refused(corpus: Corpus, encoders):
    with pytest.raises(ConfigError, match="frozen_share"):
        FinetuneSettings(frozen_share=2)
    with pytest.raises(ModelError, match="this encoder needs"):
        finetune(replace(corpus, spectrogram=SpectrogramSettings(fft_hop=10)), FOLD, encoders, FEW, 0)
    with pytest.raises(DataError, match="fewer than two classes"):
        finetune(corpus, FOLD, encoders, FEW, 0, corpus.label_R == 1)

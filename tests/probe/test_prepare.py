from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from selfpab_jax.data.sources.base import Recording, Skipped
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.stft import SpectrogramSettings


def lines(corpus) -> list[str]:
    return [f"{entry.what}: {entry.reason}" for entry in corpus.skipped]


def without_labels(recording):
    return [replace(recording, labels_N=None)]


def test_nothing_of_a_good_source_is_skipped(corpus, synthetic):
    assert corpus.skipped == ()
    assert corpus.subjects == ("s0", "s1", "s2", "s3")
    assert corpus.classes == ("walking", "running", "standing", "lying")
    assert corpus.channels == tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
    assert (corpus.frame_counts == 300).all()
    assert len(corpus.windows.first_W) == 4 * 15
    source = synthetic()
    for recording, file in zip(corpus.recordings, source.files(), strict=True):
        (published,) = source.read(file)
        np.testing.assert_array_equal(recording.signal_NxC, published.signal_NxC)
        np.testing.assert_array_equal(recording.labels_N, published.labels_N)
        assert recording.labels_N.dtype == np.int16
        assert recording.start_ms % 86_400_000 == 0


def test_rows_are_the_frames_of_windows(corpus):
    assert (corpus.rows_of_windows == 20).all()
    np.testing.assert_array_equal(corpus.frame_R, np.tile(np.arange(300), 4))
    np.testing.assert_array_equal(corpus.subject_R, np.repeat(np.arange(4), 300))
    assert set(np.unique(corpus.label_R)) == {0, 1, 2, 3}
    # The last frame of 7,500 samples is half padded.
    np.testing.assert_array_equal(corpus.whole_R, corpus.frame_R < 299)


@pytest.mark.parametrize("resampling", ["polyphase", "fourier"])
def test_other_rates_are_resampled(synthetic, make_corpus, corpus, resampling):
    faster = make_corpus(synthetic(rate_hz=100.0, subjects=1), resampling=resampling)
    (recording,) = faster.recordings
    assert len(recording.signal_NxC) == len(recording.labels_N) == 7500
    assert recording.signal_NxC.dtype == np.float32
    standing = recording.labels_N == 2
    assert recording.signal_NxC[standing, 0].mean() == pytest.approx(-1, abs=0.15)
    with pytest.raises((ConfigError, TypeError), match="resampling"):  # TypeError: if types are checked
        make_corpus(synthetic(), resampling="linear")


def test_recordings_are_cut_at_each_change_of_activity(synthetic, make_corpus, corpus):
    def half_labeled(recording):
        return [replace(recording, labels_N=np.where(np.arange(7500) < 3000, recording.labels_N, -1))]

    cut = make_corpus(synthetic(subjects=2, damage={"s1": half_labeled}), cut_at_activity=True, short="fit")
    for recording in cut.recordings:
        assert len(set(recording.labels_N.tolist())) == 1
        assert recording.labels_N[0] >= 0
    whole = corpus.recordings[0]
    mine = [recording for recording in cut.recordings if recording.subject == "s0"]
    np.testing.assert_array_equal(np.concatenate([recording.signal_NxC for recording in mine]), whole.signal_NxC)
    second = mine[1]
    first_length = len(mine[0].labels_N)
    assert second.name == f"s0.csv+{first_length}"
    assert second.start_ms == whole.start_ms + first_length * 20
    assert sum(len(recording.labels_N) for recording in cut.recordings if recording.subject == "s1") == 3000


def test_short_recordings_are_set_aside_in_one_line(synthetic, make_corpus):
    def in_pieces(recording):
        return [
            replace(recording, name=str(first), signal_NxC=recording.signal_NxC[first:last], labels_N=labels)
            for first, last in ((0, 30), (30, 5000), (5000, 5040))
            if (labels := recording.labels_N[first:last]) is not None
        ]

    corpus = make_corpus(synthetic(subjects=2, damage={"s1": in_pieces}))
    assert lines(corpus) == ["s1: 2 recordings shorter than 1 s, 1.4 s in all"]
    assert [recording.name for recording in corpus.recordings] == ["s0.csv", "30"]


def test_an_unreadable_file_is_skipped(synthetic, make_corpus, rejected):
    corpus = make_corpus(synthetic(subjects=3, damage={"s1": rejected}))
    assert corpus.subjects == ("s0", "s2")
    assert corpus.skipped == (Skipped("s1, s1.csv", "unreadable: s1.csv"),)


def test_a_class_that_is_unknown_is_taken_as_no_label(synthetic, make_corpus):
    def with_cycling(recording):
        return [replace(recording, labels_N=np.where(np.arange(7500) < 1000, 7, recording.labels_N))]

    corpus = make_corpus(synthetic(subjects=2, damage={"s1": with_cycling}))
    assert lines(corpus) == [
        "s1, s1.csv: s1.csv: 1000 samples of label 7, which is not a class; taken as unlabeled",
    ]
    labels = corpus.recordings[1].labels_N
    assert (labels[:1000] == -1).all()
    assert (labels[1000:] >= 0).all()


@pytest.mark.parametrize("damage", [without_labels, lambda r: [replace(r, labels_N=np.full(7500, -1, np.int32))]])
def test_a_subject_without_labels_is_skipped(synthetic, make_corpus, damage):
    for cut in (False, True):
        corpus = make_corpus(synthetic(subjects=3, damage={"s1": damage}), cut_at_activity=cut)
        assert corpus.subjects == ("s0", "s2")
        assert lines(corpus) == ["s1: none of its 7500 samples has a label"]


def test_a_subject_whose_labels_lie_in_unusable_samples_is_skipped(synthetic, make_corpus):
    def labeled_in_a_gap(recording):
        signal = recording.signal_NxC.copy()
        signal[:500] = np.nan
        labels = np.where(np.arange(7500) < 500, recording.labels_N, -1)
        return [replace(recording, signal_NxC=signal, labels_N=labels)]

    corpus = make_corpus(synthetic(subjects=2, damage={"s1": labeled_in_a_gap}))
    assert corpus.subjects == ("s0",)
    assert lines(corpus)[1:] == ["s1: none of its 500 labeled samples is in a usable recording"]


def test_a_recording_without_labels_stays_with_its_subject(synthetic, make_corpus):
    def and_another(recording):
        return [recording, replace(recording, name="other", labels_N=None)]

    corpus = make_corpus(synthetic(subjects=2, damage={"s1": and_another}))
    assert [recording.name for recording in corpus.recordings] == ["s0.csv", "s1.csv", "other"]
    assert corpus.skipped == ()
    assert (corpus.frame_labels[2] == -1).all()


def test_short_gaps_are_bridged_and_long_ones_end_a_recording(synthetic, make_corpus, corpus):
    def with_gaps(recording):
        signal = recording.signal_NxC.copy()
        signal[1000:1010, 2] = np.nan
        signal[3000:3011, 4] = np.inf
        signal[7490:] = np.nan
        return [replace(recording, signal_NxC=signal)]

    damaged = make_corpus(synthetic(subjects=2, damage={"s1": with_gaps}))
    assert lines(damaged) == ["s1, s1.csv: NaN in 31 of 7500 rows: 10 bridged in gaps up to 0.2 s, 21 left out"]
    _, first, second = damaged.recordings
    whole = corpus.recordings[1]
    assert (first.name, len(first.labels_N)) == ("s1.csv", 3000)
    assert (second.name, len(second.labels_N)) == ("s1.csv+3011", 4479)
    assert second.start_ms - first.start_ms == round(timedelta(seconds=3011 / 50) / timedelta(milliseconds=1))
    np.testing.assert_array_equal(second.signal_NxC, whole.signal_NxC[3011:7490])
    np.testing.assert_array_equal(second.labels_N, whole.labels_N[3011:7490])
    untouched = np.r_[0:1000, 1010:3000]
    np.testing.assert_array_equal(first.signal_NxC[untouched], whole.signal_NxC[untouched])
    line = np.linspace(whole.signal_NxC[999, 2], whole.signal_NxC[1010, 2], 12)[1:-1]
    np.testing.assert_allclose(first.signal_NxC[1000:1010, 2], line, atol=1e-6)


def test_an_absurd_sample_is_interpolated(synthetic, make_corpus, corpus):
    def glitch(recording):
        signal = recording.signal_NxC.copy()
        signal[1000, 2] = 1e38
        return [replace(recording, signal_NxC=signal)]

    damaged = make_corpus(synthetic(damage={"s1": glitch}))
    assert lines(damaged) == [
        "s1, s1.csv: NaN or more than 1e+06 g in 1 of 7500 rows: 1 bridged in gaps up to 0.2 s, 0 left out"
    ]
    np.testing.assert_allclose(damaged.recordings[1].signal_NxC, corpus.recordings[1].signal_NxC, atol=3)


def test_a_sensor_missing_in_one_subject_skips_it(synthetic, make_corpus):
    def no_thigh(recording):
        return [replace(recording, signal_NxC=recording.signal_NxC[:, :3])]

    def empty_thigh(recording):
        signal = recording.signal_NxC.copy()
        signal[:, 3:] = np.nan
        return [replace(recording, signal_NxC=signal)]

    corpus = make_corpus(synthetic(subjects=3, damage={"s0": no_thigh, "s1": empty_thigh}))
    assert corpus.subjects == ("s2",)
    assert lines(corpus) == [
        "s0, s0.csv: s0.csv has 3 channels, not the 6 of back_x, back_y, back_z, thigh_x, thigh_y, thigh_z: "
        "is a sensor missing?",
        "s1, s1.csv: no row has numbers in all channels (thigh_x, thigh_y, thigh_z never has: is a sensor missing?)",
        "s1: none of its 7500 labeled samples is in a usable recording",
    ]


@pytest.mark.parametrize("rate", [100.0, 0.0, float("nan")])
def test_a_rate_that_does_not_fit_the_declared_one_skips_the_file(synthetic, make_corpus, rate):
    corpus = make_corpus(synthetic(subjects=2, damage={"s0": lambda recording: [replace(recording, rate_hz=rate)]}))
    assert corpus.subjects == ("s1",)
    assert lines(corpus) == [f"s0, s0.csv: s0.csv has {rate:.4g} Hz, but synthetic declares 50 Hz"]


def test_labels_of_another_length_skip_the_file(synthetic, make_corpus):
    def nine_labels(recording):
        # Past the type check of the constructor, as a reader of a user's own could be.
        object.__setattr__(recording, "labels_N", np.zeros(9, np.int32))
        return [recording]

    corpus = make_corpus(synthetic(subjects=2, damage={"s0": nine_labels}))
    assert lines(corpus) == ["s0, s0.csv: s0.csv has 9 labels for 7500 samples"]


def test_what_readers_note_is_kept(synthetic, make_corpus):
    corpus = make_corpus(
        synthetic(subjects=2, damage={"s0": lambda recording: [replace(recording, notes=("2 rows dropped",))]})
    )
    assert corpus.subjects == ("s0", "s1")
    assert lines(corpus) == ["s0, s0.csv: 2 rows dropped"]


def test_strict_stops_at_the_first(synthetic, make_corpus, rejected):
    for damage in (rejected, without_labels):
        with pytest.raises(DataError, match=r"^s1"):
            make_corpus(synthetic(subjects=3, damage={"s1": damage}), strict=True)


def test_nothing_left_is_an_error(synthetic, make_corpus, rejected):
    with pytest.raises(DataError, match=r"no recording can be used \(s0, s0\.csv: unreadable"):
        make_corpus(synthetic(subjects=2, damage={"s0": rejected, "s1": rejected}))


def test_names_are_one_recordings_only(synthetic, make_corpus):
    def twice(recording: Recording):
        return [recording, recording]

    corpus = make_corpus(synthetic(subjects=1, damage={"s0": twice}))
    assert [recording.name for recording in corpus.recordings] == ["s0.csv", "s0.csv#2"]


def test_every_frame_of_every_recording_is_a_row(synthetic, make_corpus):
    for short in ("pad", "fit"):
        corpus = make_corpus(synthetic(subjects=2, seconds=40.3), frames=32, shift=12, short=short)
        for index, frames in enumerate(corpus.frame_counts):
            rows = corpus.recording_R == index
            assert set(corpus.frame_R[rows].tolist()) == set(range(frames))
            np.testing.assert_array_equal(corpus.label_R[rows], corpus.frame_labels[index][corpus.frame_R[rows]])


def test_other_spectrograms(synthetic, make_corpus):
    settings = SpectrogramSettings(20.0, 30, 20)
    corpus = make_corpus(synthetic(subjects=1), spectrogram=settings, frames=10, shift=10)
    assert len(corpus.recordings[0].labels_N) == 3000
    assert corpus.frame_counts[0] == 150

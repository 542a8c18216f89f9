import numpy as np
import pytest

from selfpab_jax.data.sources.base import SourceFile, UnusableError
from selfpab_jax.data.sources.hunt4 import Hunt4
from selfpab_jax.errors import DataError


def read(path, seconds=60.0, name="2019-03-01_07"):
    return Hunt4((str(path.parent),), seconds=seconds).read(SourceFile("s", name, str(path), 0))[0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_the_first_rows_of_any_npz(tmp_path, moving, order, dtype, save):
    longer = np.concatenate([moving, moving + 0.1]).astype(dtype, order=order)
    save(tmp_path / "a.npz", arr_0=longer)
    recording = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(recording.signal_NxC, moving)
    assert recording.signal_NxC.flags.c_contiguous
    assert recording.start.hour == 7
    assert recording.rate_hz == 50.0


def test_every_fault_has_a_reason(tmp_path, moving):
    path = tmp_path / "a.npz"

    def reason_of(**arrays):
        np.savez(path, **arrays)
        with pytest.raises(UnusableError) as caught:
            read(path)
        return str(caught.value)

    assert "wrong key: the npz holds other" in reason_of(other=moving)
    assert "wrong number of columns: arr_0 has shape (3000, 5)" in reason_of(arr_0=moving[:, :5])
    assert "wrong number of columns" in reason_of(arr_0=moving[:, 0])
    assert "too short: 2999 samples, 3000" in reason_of(arr_0=moving[:-1])
    assert "wrong type" in reason_of(arr_0=moving.astype("U8"))
    assert "NaN" in reason_of(arr_0=np.full_like(moving, np.nan))
    assert "infinity" in reason_of(arr_0=np.full(moving.shape, 1e300))
    # An object array would have to be unpickled, which can run code: it is never opened.
    assert "wrong type" in reason_of(arr_0=moving.astype(object))
    for content in (b"", b"no npz at all", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(UnusableError, match="not a readable npz"):
            read(path)
    np.savez(path, arr_0=moving)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnusableError, match="not a readable npz"):
        read(path)
    np.savez_compressed(path, arr_0=moving)
    damaged = bytearray(path.read_bytes())
    damaged[200:400] = b"\xff" * 200
    path.write_bytes(damaged)
    with pytest.raises(UnusableError, match="not a readable npz"):
        read(path)
    np.savez(path, arr_0=moving)
    with pytest.raises(UnusableError, match="wrong name"):
        read(path, name="monday")


def test_lists_subjects_and_skips_the_night(tmp_path):
    for subject in ("b", "a.7z"):
        (tmp_path / subject).mkdir()
        for hour in (0, 6, 7, 23):
            (tmp_path / subject / f"2019-03-01_{hour:02d}.npz").touch()
    (tmp_path / "a.7z" / "notes.txt").touch()
    every = [(file.subject, file.name[-2:]) for file in Hunt4((str(tmp_path),)).files()]
    assert every == [(subject, hour) for subject in ("a", "b") for hour in ("00", "06", "07", "23")]
    by_day = [file.name[-2:] for file in Hunt4((str(tmp_path),), skip_night=True).files()]
    assert by_day == ["07", "23"] * 2


def test_no_files_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=folder.name):
            list(Hunt4((str(folder),)).files())

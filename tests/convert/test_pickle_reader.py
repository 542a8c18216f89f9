"""A pickle is data: whatever it names, nothing is imported and nothing runs."""

import collections
import os
import pickle
from pathlib import Path

import pytest

from selfpab_jax.convert.pickle_reader import read_pickle
from selfpab_jax.errors import ModelError


class Evil:
    def __init__(self, path: Path, function: object = os.system):
        self.call = (function, (f"touch {path}",))

    def __reduce__(self) -> tuple:
        return self.call


def test_plain_values_come_back():
    value = {"a": [1, 2.5, "x", None, True, (1, 2, 3, 4)], "b": collections.OrderedDict([("c", -(2**40))]), "d": ()}
    for protocol in (2, 4, 5):
        assert read_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "posix.system"), (eval, "builtins.eval"), (open, "io.open")]
)
def test_any_other_callable_is_refused_by_name(tmp_path, protocol, function, name):
    target = tmp_path / "ran"
    with pytest.raises(ModelError, match=rf"names \S*{name.split('.')[1]}, which is refused; nothing was run"):
        read_pickle(pickle.dumps({"state_dict": Evil(target, function)}, protocol))
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "refused|needs"),  # INST
        (b"\x80\x02\x82\x01.", "EXT1"),  # the extension registry
        (b"cos\nsystem\n(U\x01xtR.", r"os\.system"),  # a GLOBAL of protocol 0
        (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "torch.FloatStorage"),  # a dtype is not a function
        (b"\x80\x02]" + b"\x85" * 200_000 + b"K\x01s.", "damaged"),  # a deep tuple as a key
        (b"\x80\x02}]K\x01s.", "damaged"),  # a list as a key
        (b"\x80\x02K\x01", "no end|damaged"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged"),  # a memo of four thousand million
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),  # a text longer than the file
        (b"", "damaged"),
        (b"\x80\x02cos.path\nexists\n.", r"os\.path\.exists"),  # named, not called
        (b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x00a\x85R.", r"calls torch\.hub\.load"),
        (b"\x80\x02c__builtin__\ngetattr\n)R.", r"builtins\.getattr"),
        (b"\x80\x02ctypes\nCodeType\n)\x81.", r"types\.CodeType"),
        (b"\x80\x02K\x01)R.", "damaged"),  # a number is called
        (b"\x80\x02cmy.code\nThing\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb]" + b"\x85" * 40 + b"\x86.", "hostile"),
    ],
)
def test_hostile_pickles_are_told_apart_and_not_run(data, said):
    with pytest.raises(ModelError, match=said):
        read_pickle(data)


def test_objects_are_data_and_their_classes_are_never_imported():
    data = (
        b"\x80\x02cno_such_module\nThing\n)\x81}X\x01\x00\x00\x00aK\x01sb"  # its attribute a is 1
        b"cpathlib\nPosixPath\nX\x01\x00\x00\x00/X\x01\x00\x00\x00d\x86R"
        b"cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00bK\x02sb\x87."
    )
    thing, path, namespace = read_pickle(data)
    assert (thing.name, thing.attributes) == ("no_such_module.Thing", {"a": 1})
    assert (path, namespace) == ("/d", {"b": 2})


def test_a_file_cannot_ask_for_copies_without_end():
    text, copy = b"X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00", b"c_codecs\nencode\nh\x00\x85R"
    with pytest.raises(ModelError, match="hostile"):
        read_pickle(b"\x80\x02" + text + copy * 300 + b".")

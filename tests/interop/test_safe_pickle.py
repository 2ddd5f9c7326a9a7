"""Every pickle here that asks for something would, read by Python's own reader, do it."""

import collections
import copyreg
import io
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from avrecog.errors import PickleError
from avrecog.interop.safe_pickle import loads, read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DTYPES = ["?", "i1", "u1", "<i2", ">i2", "<u4", ">i8", "<i8", "<f2", ">f4", "<f4", "<f8", ">f8"]


class Asks:
    """Pickles to a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class OfThisProject:
    def __init__(self):
        self.value = 1


def stored(tensor: torch.Tensor) -> bytes:
    """The bytes that a pickled tensor hands to `_load_from_bytes`."""
    file = io.BytesIO()
    torch.save(
        torch.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True),
        file,
        _use_new_zipfile_serialization=False,
    )
    return file.getvalue()


def calling(module_and_name: bytes, arguments: object) -> bytes:
    """A pickle that calls a function of any name."""
    return b"\x80\x02c" + module_and_name.replace(b" ", b"\n") + b"\n" + pickle.dumps(arguments, 2)[2:-1] + b"R."


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value, protocol):
    assert loads(pickle.dumps(value, protocol)) == value


@given(
    array=st_numpy.arrays(st.sampled_from(DTYPES), st_numpy.array_shapes(min_dims=0, min_side=0, max_dims=3)),
    protocol=st.sampled_from(PROTOCOLS),
    is_fortran=st.booleans(),
)
def test_arrays_come_back(array, protocol, is_fortran):
    given_array = array.T if is_fortran else array
    (read,) = loads(pickle.dumps([given_array], protocol))
    expected = pickle.loads(pickle.dumps(given_array, protocol))  # below 5 in the machine's byte order
    assert read.dtype == expected.dtype
    assert read.shape == expected.shape
    assert read.tobytes() == expected.tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_that_numpy_1_wrote_come_back(protocol):
    rows = [np.arange(3, dtype=np.float32), np.float64(0.5), np.arange(6.0).reshape(2, 3).T]
    content = pickle.dumps(rows, protocol)
    if protocol < 4:
        content = content.replace(b"numpy._core", b"numpy.core")
    else:  # names have their lengths before them, and lie in a frame
        content = content.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
        content = content.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric")
    assert b"numpy._core" not in content
    for read, row in zip(loads(content), rows, strict=True):
        assert np.array_equal(read, row)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_tensors_come_back_as_arrays(protocol, dtype):
    base = torch.arange(24).reshape(4, 6).to(getattr(torch, dtype))
    for tensor in (base, base[2], base[:, 1::2], base.T, base[0, 0], base[:0], base[1:1]):
        (read,) = loads(pickle.dumps([tensor], protocol))
        assert type(read) is np.ndarray
        assert read.dtype == dtype
        assert np.array_equal(read, tensor.numpy())


def test_an_ordered_dict_comes_back_as_a_dict():
    value = collections.OrderedDict(b=1, a=[2])
    for protocol in PROTOCOLS:
        assert list(loads(pickle.dumps(value, protocol)).items()) == [("b", 1), ("a", [2])]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Asks(__import__("os").system, "true"), "posix.system"),
        (Asks(eval, "1"), "eval"),
        (OfThisProject(), "OfThisProject|copy.*_reconstructor"),
        (OfThisProject, "OfThisProject"),
        ([1, {"a": (Asks(Asks, Asks(eval, "1")),)}], "Asks|eval"),
        (Asks(np.frombuffer, Asks(exec, "1")), "numpy.frombuffer"),
        (np.dtype("O"), "other than plain numbers"),
        (np.array([{}], dtype=object), "other than plain numbers"),
        (np.zeros(2, "M8[s]"), "other than plain numbers"),
        (np.zeros(2, [("a", "f4")]), "other than plain numbers"),
        (np.zeros(2, "U3"), "other than plain numbers"),
        (np.ma.zeros(2), "numpy.ma"),
        (1j, "complex"),
        (slice(1), "slice"),
    ],
)
def test_what_a_pickle_may_not_name_is_refused_by_name(value, name, protocol):
    with pytest.raises(PickleError, match=name):
        loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "asks for 'os.system', which could run code; refused"),
        (b"(S'true'\nios\nsystem\n.", "asks for 'os.system'"),
        (b"(cos\nsystem\nS'true'\no.", "asks for 'os.system'"),
        (b"(ccollections\nOrderedDict\no.", "asks for OBJ"),
        (b"(icollections\nOrderedDict\n.", "object of collections.OrderedDict by INST"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "asks for NEWOBJ"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for 'os.system'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x13dtype.type.__init__\x93.", "asks for 'numpy.dtype.type.__init__'"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x0fOrderedDict.get\x93.", "asks for 'collections.OrderedDict.get'"),
        (b"cnumpy dtype\n\n.", "asks for 'numpy.dtype '"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93.", "damaged|os.system"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93)R.", "asks for 'os.system'"),
        (b"\x80\x02\x82\x01.", "asks for EXT1 1"),
        (b"\x80\x02\x83\x01\x00.", "asks for EXT2 1"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "asks for EXT4 1"),
        (b"Pposix system\n.", "asks for PERSID 'posix system'"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "an object outside of the file"),
        (b"\x80\x05\x97.", "asks for NEXT_BUFFER"),
        (b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__call__K\x01sb.", "sets the state of numpy.dtype"),
        (b"\x80\x02}}b.", "sets the state of a dict"),
        (b"\x80\x02ccollections\nOrderedDict\n]a.", "appends to|damaged"),
        (b"\x80\x02]cnumpy\ndtype\na.", "holds numpy.dtype"),
        (b"\x80\x02}X\x01\x00\x00\x00acnumpy\ndtype\ns.", "holds numpy.dtype"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "calls numpy.ndarray"),
        (b"\x80\x02K\x01)R.", "calls a int"),
        (b"\x80\x02cnumpy\ndtype\n]R.", "calls numpy.dtype with a list"),
        (b"\x80\x02cnumpy\ndtype\n.", "holds numpy.dtype"),
        (b"\x80\x02}K\x01K\x02s.", "has a int as a dict's key"),
        (b"\x80\x04\x8f.", "asks for EMPTY_SET"),
        (b"\x80\x02K\x01r\xff\xff\xff\xff.", "memo index 4294967295"),
        (b"\x80\x02h\x05.", "memo index 5 is not there"),
        (b"\x80\x02", "damaged or no pickle"),
        (b"", "damaged or no pickle"),
        (b"\x80\x02.", "damaged or no pickle"),
        (b"\x80\x021.", "damaged or no pickle"),
        (b"\x80\x02\x85.", "damaged or no pickle"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged or no pickle"),
        (b"\x80\x05\x96\xff\xff\xff\xff\x00\x00\x00\x00.", "damaged or no pickle"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged or no pickle"),
        (b"not a pickle", "damaged or no pickle"),
    ],
)
def test_opcodes_that_do_more_than_hold_values_are_refused(content, message):
    with pytest.raises(PickleError, match=message):
        loads(content)


def test_a_registered_extension_is_not_looked_up():
    copyreg.add_extension("posix", "system", 240)
    try:
        with pytest.raises(PickleError, match="asks for EXT1 240"):
            loads(pickle.dumps(__import__("posix").system, 2))
    finally:
        copyreg.remove_extension("posix", "system", 240)


def test_a_storage_inside_may_name_nothing_but_its_numbers():
    good = stored(torch.arange(3.0))
    magic, rest = good[:15], good[15:]
    assert magic[-1:] == b"."
    for inside, message in (
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (calling(b"torch.storage _load_from_bytes", (good,)), "torch.storage._load_from_bytes"),
        (good.replace(b"ctorch\nFloatStorage", b"cposix\nsystem\n__"), "posix.system"),
        (magic[:2] + b"K\x01." + rest, "tensor's storage that can't be"),
        (
            good.replace(b"X\x07\x00\x00\x00storage", b"X\x07\x00\x00\x00st_rage"),
            "refers to other than a tensor's storage",
        ),
        (good[:-1], "tensor's storage that can't be"),
        (good + b"\x00", "tensor's storage that can't be"),
        (good[:-20] + struct.pack("<q", 2**40) + good[-12:], "tensor's storage that can't be"),
    ):
        assert inside != good
        with pytest.raises(PickleError, match=message):
            loads(calling(b"torch.storage _load_from_bytes", (inside,)))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (4,), (1,)),
        (1, (3,), (1,)),
        (0, (2, 2), (2, 1)),
        (0, (2,), (-1,)),
        (-1, (1,), (1,)),
        (0, (1000,), (0,)),
        (0, (2**40,), (0,)),
        (0, (2,), (2**60,)),
        (3, (1,), (1,)),
        (0, (3,), (1, 1)),
        (0, (1,) * 9, (1,) * 9),
        (0.0, (1,), (1,)),
        (0, [1], (1,)),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(offset, size, stride):
    storage = calling(b"torch.storage _load_from_bytes", (stored(torch.arange(3.0)),))[2:-1]
    arguments = storage + b"".join(pickle.dumps(value, 0)[:-1] for value in (offset, size, stride, False))
    content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"}tR."
    with pytest.raises(PickleError, match="tensor that can't be"):
        loads(content)


def test_an_array_of_another_size_than_its_bytes_is_refused():
    content = pickle.dumps(np.zeros(8, np.float32), 2)
    assert content.count(b"K\x08") == 1
    for size in (
        b"K\x07",
        b"K\x09",
        b"J\xff\xff\xff\xff",
        b"K\x08K\x08",
        b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
        b"N",
        b"\x88",
    ):
        with pytest.raises(PickleError, match="an array that can't be|damaged"):
            loads(content.replace(b"K\x08", size))


def test_small_files_that_unfold_to_much_are_refused():
    big = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
    encode = b"c_codecs\nencode\nq\x01" + big + b"q\x02X\x06\x00\x00\x00latin1q\x03"
    many_copies = b"\x80\x02](" + encode + b"h\x01h\x02h\x03\x86R" * 5000 + b"e."
    lists, marks = b"\x80\x02](" + b"]" * 10**6 + b"e.", b"\x80\x02" + b"(" * 10**6 + b"."
    for content in (many_copies, lists, marks):
        tracemalloc.start()
        with pytest.raises(PickleError, match="unfolds to more than 16 times its size"):
            loads(content)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * len(content)


def test_deep_nesting_and_values_that_hold_themselves_end_well():
    assert type(loads(b"\x80\x02)" + b"\x85" * 1000 + b".")) is tuple
    deep = b"\x80\x02" + b"(" * 500 + b"l" * 500 + b"."
    with pytest.raises(PickleError, match="unfolds|damaged"):
        loads(b"\x80\x02" + b"(" * 10**6 + b"l" * 10**6 + b".")
    assert type(loads(deep)) is list
    itself = loads(b"\x80\x02]q\x00h\x00a.")
    assert itself[0] is itself


def test_the_files_name_is_in_the_message(tmp_path):
    with pytest.raises(PickleError, match=r"none\.pkl: can't be read \(No such file"):
        read_pickle(tmp_path / "none.pkl")
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(PickleError, match=r"a\.pkl: asks for 'os\.system'"):
        read_pickle(tmp_path / "a.pkl")

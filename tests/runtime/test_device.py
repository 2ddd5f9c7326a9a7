"""What the machine is and has."""

import pytest
import torch

from avrecog.errors import OutOfMemoryError
from avrecog.runtime.device import lacking_to_compile, lacks_memory, pick_device

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def has(monkeypatch):
    """Make this a machine that has these programs, and no others."""

    def only(*names):
        monkeypatch.setattr("shutil.which", lambda name: name if name in names else None)
        monkeypatch.setattr("pathlib.Path.exists", lambda path: True)  # Python's headers
        monkeypatch.setattr("sys.platform", "linux")
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("CC", raising=False)

    return only


def test_a_compiler_is_one_that_torch_compile_finds(has, monkeypatch):
    has("g++")
    assert lacking_to_compile(CPU) is None
    has("clang++")  # which Inductor takes for granted on a Mac only
    assert lacking_to_compile(CPU) == "there is no C++ compiler; install g++, or set CXX"
    monkeypatch.setenv("CXX", "clang++ -O2")
    assert lacking_to_compile(CPU) is None
    has("g++")
    monkeypatch.setenv("CXX", "nowhere")
    assert lacking_to_compile(CPU) == "there is no C++ compiler (CXX is 'nowhere'); install g++, or set CXX"


def test_a_gpu_needs_a_compiler_of_c(has, monkeypatch):
    has("clang")
    assert lacking_to_compile(GPU) is None
    has("g++")
    assert lacking_to_compile(GPU) == "there is no C compiler; install gcc, or set CC"
    has("cc")
    monkeypatch.setenv("CC", "cc")
    assert lacking_to_compile(GPU) is None


def test_each_process_of_torchrun_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device() == torch.device("cuda", 3)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device() == CPU


def caused_by(cause):
    error = RuntimeError("Failed to export the model")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (OutOfMemoryError("out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (caused_by(MemoryError("no memory")), True),
        (caused_by(caused_by(RuntimeError("can't allocate memory"))), True),
        (caused_by(RuntimeError("no such operator")), False),
        (ValueError("memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_faults(error, lacks):
    assert lacks_memory(error) is lacks

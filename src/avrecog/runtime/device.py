"""What the machine is and how much of it a stage used."""

import contextlib
import os
import platform
import resource
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avrecog.errors import OutOfMemoryError
from avrecog.runtime.distributed import processes
from avrecog.runtime.worker_pool import n_processors


def pick_device() -> torch.device:
    """The GPU where there is one, the CPU where there is none; each process that torchrun starts has its own GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", processes().index_on_this_machine)


def resolve_precision(precision: str) -> str:
    """What `auto` stands for on this machine: bf16-mixed on a GPU that has it, else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def reduced_precision(device: torch.device, precision: str) -> torch.autocast:
    """Within the block the network computes with the precision's number type where it may."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return torch.autocast(device.type, kind, enabled=kind is not None)


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, its weights in channels-last order on a GPU.

    Not on the CPU: there it gains 1 %, and torch 2.14.1 crashes in the backward pass of an 8-channel convolution on a
    batch of 7 (docs/log.md).
    """
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if device.type == "cuda" else network


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """The values on the device, through pinned memory to a GPU: the processor goes on while the GPU still computes."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def device_name(device: torch.device) -> str:
    """The device in words: `NVIDIA H100`, `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def hardware() -> str:
    """Processor, cores and GPUs of this machine in one line."""
    parts = [f"{_processor()} ({n_processors()} cores)"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(parts)


def machine_tags() -> dict[str, str]:
    """What may move a number beside code, data and parameters, as tags: hardware, version of torch, threads."""
    return {"hardware": hardware(), "torch": torch.__version__, "threads": str(torch.get_num_threads())}


def lacking_to_compile(device: torch.device) -> str | None:
    """What torch.compile would miss on this machine, in words: a compiler of C++, or for a GPU Triton's of C.

    It is looked for as they look for it: CXX or g++ (clang++ on a Mac), and CC or gcc or clang.
    """
    if device.type == "cuda":
        language, variable, names = "C", "CC", ["gcc", "clang"]
    else:
        language, variable, names = "C++", "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    given = os.environ.get(variable)
    if not any(shutil.which(name) for name in (names if given is None else given.split()[:1])):
        of_variable = "" if given is None else f" ({variable} is {given!r})"
        return f"there is no {language} compiler{of_variable}; install {names[0]}, or set {variable}"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers are missing; install python3-dev"
    return None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mib() -> float:
    """The most main memory this process has held, in MiB (the libraries it loaded included)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def gpu_memory_mib() -> float | None:
    """The most GPU memory that tensors of this process have held, in MiB, since the start or since
    `reset_peak_gpu_memory`; None without a GPU.
    """
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def reset_peak_gpu_memory() -> None:
    """Count the peak of GPU memory from here on."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def oom_advice(advice: str) -> Iterator[None]:
    """Within the block, memory that can't be had becomes an error that says what to lower.

    Raises:
        OutOfMemoryError: with the `advice`.
        RuntimeError: as it came, where it isn't about memory.
    """
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(f"out of memory ({error}); {advice}") from None
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        reason = str(error).split("\n")[0].split(". GPU ")[0]
        raise OutOfMemoryError(f"out of {'GPU ' if on_gpu else ''}memory ({reason}); {advice}") from None


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is about memory that can't be had."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemoryError):
            return True
        if "can't allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except FileNotFoundError:
        pass  # not Linux
    return platform.processor() or platform.machine()

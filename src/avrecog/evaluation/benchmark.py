"""Stage benchmark: how fast a trained model is, and what it needs. The model alone: no reading, no decoding."""

import copy
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avrecog.config import flatten
from avrecog.errors import ConfigError
from avrecog.inference.engines import ENGINES, Network
from avrecog.inference.settings import BenchmarkConfig, EngineName, TestConfig, Variant
from avrecog.inference.trained_model import TrainedModel, load_model
from avrecog.runtime.device import (
    device_name,
    gpu_memory_mib,
    lacking_to_compile,
    on_device,
    oom_advice,
    peak_memory_mib,
    pick_device,
    reduced_precision,
    reset_peak_gpu_memory,
    resolve_precision,
    synchronise,
)
from avrecog.runtime.files import atomic_path
from avrecog.tracking.outcome import Outcome

log = logging.getLogger(__name__)

ENGINE_OF: dict[Variant, EngineName | None] = {  # None: the network as it was trained, batch norms and all
    "eager": None,
    "folded": "torch",
    "compiled": "torch-compiled",
    "onnxruntime": "onnxruntime",
    "int8": "onnxruntime-int8",
}


def benchmark_model(name: str, checkpoints: Path, test: TestConfig, config: BenchmarkConfig, out: Path) -> Outcome:
    """Time a trained model in each variant and write the figures to `out`.

    Latency and videos per second are of one clip with its test views; the throughput is of the best batch size. Warm-up
    passes are left out, the device is waited for, every timed pass counts once. GPU memory is that of the variant at
    batch 1; main memory is the process's peak, its libraries included.

    Raises:
        ConfigError: if the variant to report can't be had here.
    """
    device = pick_device()
    model = load_model(checkpoints / f"{test.checkpoint}.ckpt", name)
    n_views = model.input.n_views(model.typical_rows, test.n_clips)
    precision = resolve_precision(test.precision)
    macs = count_macs(model)
    variants = []
    for variant in config.variants:
        if variant == "compiled" and (lacking := lacking_to_compile(device)):
            if config.report == "compiled":
                raise ConfigError(f"benchmark.report: `compiled` can't be timed: {lacking}")
            log.warning("benchmark %s compiled: is left out: %s, or drop it from benchmark.variants", name, lacking)
            continue
        engine = ENGINE_OF[variant]
        in_force = (ENGINES[engine].own_precision if engine else None) or precision
        try:
            with oom_advice("lower benchmark.batch_sizes"):
                figures = _time_variant(variant, model, n_views, in_force, config)
        except ConfigError as error:  # ONNX Runtime can't have every network
            if variant == config.report:
                raise ConfigError(f"benchmark.report: `{variant}` can't be timed: {error}") from None
            log.warning("benchmark %s %s: is left out: %s, or drop it from benchmark.variants", name, variant, error)
            continue
        variants.append({"variant": variant, "precision": in_force, **figures})
    chosen = next(row for row in variants if row["variant"] == config.report)
    figures = {
        **{key: value for key, value in chosen.items() if key != "variant"},
        "peak_memory_mib": peak_memory_mib(),
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "macs": macs,
        "n_views": n_views,
        "device": device_name(device),
        "torch": torch.__version__,
        "repeats": config.repeats,
        "variant": config.report,
        "variants": variants,
    }
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    summary = (
        f"{name} on {figures['device']}: {figures['latency_ms']['median']:.1f} ms a clip of {n_views} views (p95 "
        f"{figures['latency_ms']['p95']:.1f}), {figures['throughput_clips_per_s']:.0f} clips/s at batch "
        f"{figures['best_batch']}, {macs / 1e9:.3f} GMAC a view, {figures['parameters'] / 1e6:.2f} M "
        f"parameters\n{_table(variants)}"
    )
    numbers = {key: value for key, value in figures.items() if key != "variants"}
    logged = {key: value for key, value in flatten({"benchmark": numbers}) if not isinstance(value, str)}
    return Outcome(summary, logged, files=[out], facts={"precision": chosen["precision"]})


def count_macs(model: TrainedModel) -> int:
    """Multiply-accumulates of one view: half of what torch counts as floating-point operations."""
    inputs = model.example(1, torch.device("cpu"))
    network = copy.deepcopy(model.network).requires_grad_(False)  # the counter follows what would get a gradient
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(*inputs)
    return counter.get_total_flops() // 2


def _time_variant(
    variant: Variant, model: TrainedModel, n_views: int, precision: str, config: BenchmarkConfig
) -> dict[str, Any]:
    """Latency, throughput and best batch of one variant."""
    name, device = ENGINE_OF[variant], pick_device()
    run: Network = (
        ENGINES[name].start(model, device, [model.example(16, device)]) if name else on_device(model.network, device)
    )
    reset_peak_gpu_memory()
    with torch.inference_mode(), reduced_precision(device, precision):
        one = model.example(n_views, device)
        times = time_passes(lambda: run(*one), config.warmup, config.repeats, device)
        latency_ms = {"median": statistics.median(times) * 1000, "p95": _quantile(times, 0.95) * 1000}
        gpu_memory = gpu_memory_mib()  # at batch 1, as the speed beside it
        throughput = {}
        for batch_size in config.batch_sizes:
            batch = model.example(n_views * batch_size, device)
            throughput[batch_size] = batch_size / _mean_pass(run, batch, config.seconds, device)
    best = max(throughput, key=lambda size: throughput[size])
    return {
        "latency_ms": latency_ms,
        "videos_per_s": len(times) / sum(times),
        "throughput_clips_per_s": throughput[best],
        "best_batch": best,
        "gpu_memory_mib": gpu_memory,
    }


def time_passes(run: Callable[[], Any], warmup: int, repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of `repeats` passes, the device waited for, after `warmup` that are not counted."""
    for _ in range(warmup):
        run()
    synchronise(device)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return times


def _mean_pass(run: Callable[..., Any], batch: Sequence[Tensor], seconds: float, device: torch.device) -> float:
    """Mean seconds of a pass, over as many as fit into `seconds`, two at least."""
    run(*batch)
    synchronise(device)
    began, n = time.perf_counter(), 0
    while n < 2 or time.perf_counter() - began < seconds:
        run(*batch)
        synchronise(device)
        n += 1
    return (time.perf_counter() - began) / n


def _quantile(values: Sequence[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def _table(variants: Sequence[dict[str, Any]]) -> str:
    lines = ["variant    latency (ms)   p95 (ms)   videos/s   clips/s at best batch"]
    for row in variants:
        lines.append(
            f"{row['variant']:<10} {row['latency_ms']['median']:12.2f} {row['latency_ms']['p95']:10.2f} "
            f"{row['videos_per_s']:10.1f} {row['throughput_clips_per_s']:10.1f} at {row['best_batch']}"
        )
    return "\n".join(lines)

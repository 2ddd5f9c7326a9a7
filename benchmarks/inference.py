"""How fast are trained networks, by engine, against PyTorch as it comes (eager)?

MMAction2's audio networks on one view of 128 x 80 with 400 classes, random weights. int8: ONNX Runtime's static quantisation of
the exported network, calibrated on random views.
"""

import os

import torch
from comparing import Row, Times, at_least, in_turns, show

from avrecog.config import validate
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.inference.trained_model import TrainedModel
from avrecog.models.registry import build_model, model_section
from avrecog.runtime.device import device_name, lacking_to_compile, on_device, pick_device

BATCHES = (8, 32)


def model_of_depth(depth: int) -> TrainedModel:
    torch.manual_seed(0)
    config = validate(model_section(), {"architecture": "audio", "depth": depth}, "m")
    network = build_model(config, 400).eval()
    front_end = FrontEnd(AudioConfig(LogMelConfig()), None)
    return TrainedModel("audio", network, config, front_end, [str(i) for i in range(400)], 600, 1)


def main() -> None:
    device = pick_device()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    rows = []
    for depth in (18, 50):
        model = model_of_depth(depth)
        engines = {"eager": on_device(model.network, device)}
        for engine in ("torch", "torch-compiled", "onnxruntime"):
            if engine != "torch-compiled" or lacking_to_compile(device) is None:
                engines[engine] = ENGINES[engine].start(model, device)
        if device.type == "cpu":
            engines["int8"] = ENGINES["onnxruntime-int8"].start(model, device, [model.example(16, device)])
        view = model.example(1, device)
        with torch.inference_mode():
            expected = engines["eager"](*view).softmax(dim=1)
            furthest = max(
                float((engines[name](*view).softmax(dim=1) - expected).abs().max()) for name in engines if name != "int8"
            )
            times = in_turns({name: lambda run=run: run(*view) for name, run in engines.items()}, rounds=40, warmup=5)
            rows += [of_one(depth, name, times) for name in engines if name not in ("eager", "int8")]
            rows += [of_int8(depth, times)] if "int8" in engines else []
            rows += throughput(depth, model, engines)
        rows.append(Row(f"ResNet-{depth}: how far any probability is from eager's", "", f"{furthest:.1e}", None, "at most 1e-4", furthest <= 1e-4))  # fmt: skip
    show(
        f"Inference on {device_name(device)}",
        rows,
        ["torch", "onnxruntime"],
        ["40 rounds after 5; 40 of each at batch 1, in turns. Top-1 under int8 was not judged: the weights are random."],
    )


def of_one(depth: int, name: str, times: dict[str, Times]) -> Row:
    ratio = times["eager"].median / times[name].median
    work = f"ResNet-{depth}, batch 1: eager / {name}"
    said = times["eager"].said(), times[name].said()
    return at_least(work, *said, ratio, 2.3) if name == "onnxruntime" else Row(work, *said, ratio)


def of_int8(depth: int, times: dict[str, Times]) -> Row:
    ratio = times["eager"].median / times["int8"].median
    return at_least(f"ResNet-{depth}, batch 1: eager / ONNX Runtime in int8", times["eager"].said(), times["int8"].said(), ratio, 4)  # fmt: skip


def throughput(depth: int, model: TrainedModel, engines: dict[str, object]) -> list[Row]:
    """Views a second of each engine's best batch."""
    best: dict[str, tuple[float, int]] = {}
    for size in BATCHES:
        batch = model.example(size, pick_device())
        times = in_turns({name: lambda run=run: run(*batch) for name, run in engines.items()}, rounds=7)
        for name, value in times.items():
            best[name] = max(best.get(name, (0.0, 0)), (size / value.median, size))
    said = {name: f"{rate:.0f} views/s at batch {size}" for name, (rate, size) in best.items()}
    return [
        Row(f"ResNet-{depth}, throughput: {name} / eager", said["eager"], said[name], best[name][0] / best["eager"][0])
        for name in engines
        if name != "eager"
    ]


if __name__ == "__main__":
    main()

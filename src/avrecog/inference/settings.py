"""Sections `test` and `benchmark` of params.yaml."""

from typing import Literal

from pydantic import Field

from avrecog.config import Count, Flag, PositiveNumber, section
from avrecog.errors import ConfigError

EngineName = Literal["torch", "torch-compiled", "onnxruntime", "onnxruntime-int8"]
Variant = Literal["eager", "folded", "compiled", "onnxruntime", "int8"]


@section
class TestConfig:
    """Section `test` in params.yaml."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    n_clips: Count | None = None  # views of each clip, evenly spaced (frames: at most); null: as many as cover it
    average_clips: Literal["prob", "score"] = "prob"  # mean of the views' softmax, or of their logits
    batch_size: Count = 64  # views
    checkpoint: Literal["best", "last"] = "best"  # best: of the epoch with the highest val top-1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"  # of stage benchmark too
    engine: EngineName = "torch"  # what runs the network
    result_json: Flag = False  # write the test scores as MMAction2's `--out result.json` too


@section
class BenchmarkConfig:
    """Section `benchmark` in params.yaml."""

    variants: list[Variant] = Field(default=["eager", "folded", "compiled", "onnxruntime"], min_length=1)
    report: Variant = "folded"  # the variant whose figures are the model's
    repeats: Count = 30  # timed passes at batch 1
    warmup: Count = 3  # passes before them
    batch_sizes: list[Count] = Field(default=[1, 8, 32], min_length=1)  # clips in a batch, for the throughput
    seconds: PositiveNumber = 2.0  # for each batch size

    def __post_init__(self) -> None:
        if self.report not in self.variants:
            raise ConfigError(f"report: expected one of variants ({', '.join(self.variants)}), got {self.report}")

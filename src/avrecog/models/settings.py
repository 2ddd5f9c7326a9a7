"""Sections below `models` in params.yaml: what configures each architecture. PyTorch is not needed to read them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from avrecog.config import Count, Flag, Fraction, NonNegativeNumber, Text, WholeNumber, section
from avrecog.errors import ConfigError

DEPTHS = (10, 18, 34, 50, 101)  # of audio_resnet.py
RESNET_AUDIO_DEPTHS = (50, 101, 152)
SLOWFAST_DEPTHS = (14, 26, 50, 101)
SMALLEST = 32  # mel frames and mel bands that leave one place after the stem and the poolings of cnn10.py
Place = Literal["stem", "res2", "res3", "res4"]
PLACES: tuple[Place, ...] = ("stem", "res2", "res3", "res4")  # after which Fast goes to Slow
OWN_WIDTHS = {None: 64, "cnn10": 64, "resnetaudio": 32}  # backbones of our own for log-mel, with their usual width


@section
class AudioModelConfig:
    """A section below `models` with architecture `audio`: a network on log-mel."""

    architecture: Literal["audio"]
    depth: Count | None = 18  # of the ResNet: 10, 18, 34, 50, 101; of resnetaudio: 50, 101, 152; else null
    width: Count | None = 64  # channels of the first stage of the networks of our own; null with a network of timm
    backbone: Text | None = None  # null: the ResNet; cnn10, resnetaudio: files of models/; else timm's, by its name
    mel_frames: Count = 128  # of a crop
    sampling: Literal["time", "mmaction2-0.x", "mmaction2-1.x"] = "time"  # where crops lie; else by video frame numbers
    dropout: Fraction = 0.5
    init_from: Text | None = None  # null, `imagenet` (timm's weights; needs backbone), or the path of a checkpoint
    train: dict[str, Any] = Field(default_factory=dict)  # what differs from section `train` for this model

    def __post_init__(self) -> None:
        own_depths = {None: DEPTHS, "resnetaudio": RESNET_AUDIO_DEPTHS}
        depths = own_depths.get(self.backbone)
        if depths is not None and (self.depth not in depths or self.width is None):
            known = ", ".join(map(str, depths))
            raise ConfigError(f"depth: expected one of {known}, and a width, got {self.depth} and {self.width}")
        if self.backbone == "cnn10":
            if self.depth is not None or self.width is None:
                raise ConfigError(
                    f"depth: expected null, and a width, with backbone cnn10, got {self.depth} and {self.width}"
                )
            if self.mel_frames < SMALLEST:
                raise ConfigError(f"mel_frames: expected {SMALLEST} at least with cnn10, got {self.mel_frames}")
        elif depths is None and (self.depth, self.width) != (None, None):
            raise ConfigError(f"depth: expected null, and width null, with backbone {self.backbone}, which has its own")
        if self.init_from == "imagenet" and self.backbone in OWN_WIDTHS:
            raise ConfigError("init_from: timm has no weights for this network; set backbone, e.g. to resnet18")


@section
class TsnConfig:
    """A section below `models` with architecture `tsn`: a temporal segment network on frames."""

    architecture: Literal["tsn"]
    backbone: Text = "resnet18"  # a network of timm, by its name there
    width: Count | None = None  # channels of its first stage, for timm's plain ResNets; null: the backbone's own
    n_segments: Count = 3
    snippet: Count = 1  # consecutive frames in each segment, stacked as channels
    motion: Flag = False  # show each frame less the mean picture of its snippet; needs a snippet of 2 at least
    crop_height: Count = 64  # pixels of what the network sees, cut from the stored frames
    crop_width: Count = 64
    dropout: Fraction = 0.4
    init_from: Text | None = None  # null, `imagenet` (timm's weights), or the path of a checkpoint
    train: dict[str, Any] = Field(default_factory=dict)  # what differs from section `train` for this model

    def __post_init__(self) -> None:
        if self.motion and self.snippet < 2:
            raise ConfigError("motion: expected false with a snippet of 1, in which nothing moves")
        if self.width is None:
            return
        if not self.backbone.startswith("resnet"):
            raise ConfigError(
                f"width: expected null, since only timm's resnet... have one, got backbone {self.backbone}"
            )
        if self.width % 8:
            raise ConfigError(f"width: expected a multiple of 8, got {self.width}")
        if self.init_from == "imagenet":
            raise ConfigError(
                "width: expected null with init_from imagenet, whose weights have the backbone's own width"
            )


@section
class SlowFastConfig:
    """A section below `models` with architecture `slowfast`: Slow and Fast pathways on frames."""

    architecture: Literal["slowfast"]
    depth: Count = 50  # 14, 26, 50, 101
    width: Count = 64  # channels of Slow's stem
    frames: Count = 32  # that Fast sees
    frame_stride: Count = 1  # stored frames from one to the next
    alpha: Count = 8  # Slow sees every so manieth of them
    lateral_kernel: Count = 5  # of the convolutions from Fast to Slow
    long_res4: WholeNumber = 6  # so many of res4's blocks have kernels in time; ResNet-101 has 23
    crop_height: Count = 224  # pixels of what the network sees, cut from the stored frames
    crop_width: Count = 224
    n_crops: Literal[1, 3] = 1  # of a view at test time: the middle, or three along the longer side
    dropout: Fraction = 0.5
    init_from: Text | None = None  # null, or the path of a checkpoint
    train: dict[str, Any] = Field(default_factory=dict)  # what differs from section `train` for this model

    def __post_init__(self) -> None:
        if self.depth not in SLOWFAST_DEPTHS:
            known = ", ".join(map(str, SLOWFAST_DEPTHS))
            raise ConfigError(f"depth: expected one of {known}, got {self.depth}")
        if self.width % 8:
            raise ConfigError(f"width: expected a multiple of 8, got {self.width}")
        if self.frames % self.alpha:
            raise ConfigError(f"frames: expected a multiple of alpha ({self.alpha}), got {self.frames}")
        if self.lateral_kernel % 2 == 0:
            raise ConfigError(f"lateral_kernel: expected an odd number, got {self.lateral_kernel}")
        if self.init_from == "imagenet":
            raise ConfigError("init_from: expected null or the path of a checkpoint, got imagenet, which has none")


@section
class AVSlowFastConfig(SlowFastConfig):
    """A section below `models` with architecture `avslowfast`: SlowFast with a pathway for log-mel fused into it."""

    architecture: Literal["avslowfast"]  # type: ignore[assignment]
    mel_frames: Count = 128  # of the log-mel of a view, a multiple of 8 * frames / alpha
    lateral_after: list[Place] = Field(default_factory=lambda: list(PLACES))
    drop_pathway: Fraction = 0.8  # how often, in training, the picture goes without the sound
    drop_scope: Literal["fusion", "pathway"] = "fusion"  # where it is added to Slow; `pathway`: in the classifier too
    drop_per_clip: Flag = False  # a coin for each clip; false: one for the batch
    sync_weight: NonNegativeNumber = 0.0  # of the synchronisation loss; 0: none
    hard_from_epoch: WholeNumber = 0  # until then misaligned sounds are other clips' (easy)
    hard_share: Fraction = 0.25  # of the clips, from then on, whose misaligned sound is their own at another time

    def __post_init__(self) -> None:
        super().__post_init__()
        step = 8 * self.frames // self.alpha
        if self.mel_frames % step:
            raise ConfigError(f"mel_frames: expected a multiple of 8 * frames / alpha ({step}), got {self.mel_frames}")


@section
class AVSyncConfig(AVSlowFastConfig):
    """A section below `models` with architecture `avsync`: AVSlowFast's pathways, which learn without labels.

    It learns to tell a picture's own sound from another: at another time of the same clip (`hard_share` of the pairs
    from `hard_from_epoch` on; all where it is tested), or of another clip.
    """

    architecture: Literal["avsync"]  # type: ignore[assignment]
    sync_by_step: Flag = True  # compare at each of Slow's frames; false: the means over time

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sync_weight:
            raise ConfigError("sync_weight: expected 0 with architecture avsync, which has no other loss to weigh")


ModelConfig = AudioModelConfig | TsnConfig | SlowFastConfig | AVSlowFastConfig | AVSyncConfig
ModelSection = Annotated[ModelConfig, Field(discriminator="architecture")]  # a section below `models`


def is_of_timm(config: ModelConfig) -> bool:
    """Whether the network is one of timm's, and none of our own."""
    return isinstance(config, TsnConfig) or (isinstance(config, AudioModelConfig) and config.backbone not in OWN_WIDTHS)


def describe(config: ModelConfig) -> str:
    """The backbone's name for a table: `ResNet18 (width 32)`, `resnet50`."""
    if isinstance(config, SlowFastConfig):
        names = {"slowfast": "SlowFast", "avslowfast": "AVSlowFast", "avsync": "AVSync"}
        name = names[config.architecture]
        name += f"-R{config.depth} {config.frames // config.alpha}x{config.alpha * config.frame_stride}"
        return name if config.width == 64 else f"{name} (width {config.width})"
    own: dict[str | None, str] = {}
    if isinstance(config, AudioModelConfig):
        own = {None: f"ResNet{config.depth}", "cnn10": "CNN10", "resnetaudio": f"ResNetAudio{config.depth}"}
    name = own.get(config.backbone, str(config.backbone))
    usual_width = OWN_WIDTHS[config.backbone] if config.backbone in own else None
    return name if config.width == usual_width else f"{name} (width {config.width})"

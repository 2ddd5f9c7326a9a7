"""AVSlowFast: SlowFast with an audio pathway fused into it.

Xiao et al., "Audiovisual SlowFast Networks for Video Recognition", 2020. AVSlowFast 4 x 16 with ResNet-50, on 32 frames
of 224 x 224 and 128 x 80 log-mel; kernels are time x height x width, or time x mel; sizes after each stage are frames x
height x width, or mel frames x mel bands:

| stage | Slow | Fast | Audio |
| --- | --- | --- | --- |
| input | 4 of the frames, 3 x 224^2 | 32 x 224^2 | 128 x 80 |
| stem | 1 x 7^2, 64, pooled: 4 x 56^2 | 5 x 7^2, 8, pooled: 32 x 56^2 | 9 x 1 plus 1 x 9, 32: 128 x 80 |
| res2, 3 blocks | 1, 1 x 3^2, 1; 256: 4 x 56^2 | 3, 1 x 3^2, 1; 32: 32 x 56^2 | 3 x 1 beside 1 x 3, 1; 128: 128 x 80 |
| res3, 4 blocks | 512: 4 x 28^2 | 64: 32 x 28^2 | 256: 64 x 40 |
| res4, 6 blocks | 3, 1 x 3^2, 1; 1024: 4 x 14^2 | 128: 32 x 14^2 | 1 x 1, 3 x 3, 1 x 1; 512: 32 x 20 |
| res5, 3 blocks | 2048: 4 x 7^2 | 256: 32 x 7^2 | 1024: 16 x 10 |

Slow and Fast are those of `slowfast.py`. After res3 and res4 the audio, averaged over its bands, goes through two
convolutions along time and is added to Slow at every place of the picture. The classifier stands on the means of all
pathways.

What differs from the paper's code (facebookresearch/SlowFast, pull request 219), and why:
- Fast to Slow at all four places, as SlowFast has it, so that its weights load; the pull request's settings have res3
  and res4 only (`lateral_after`).
- DropPathway may choose for each clip (`per_clip`), and may silence the classifier's audio too (`scope`).
- Where the loss compares clips, positives and misaligned sounds stay with their own clips; the pull request mixes them
  up in batches of more than one.
Left out, since no reference numbers exist: audio into Fast and then into Slow, and the audiovisual non-local block.

B batch, C channels, T frames, H W height and width, S mel frames, M mel bands, D features, K classes, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from avrecog.config import Count, Flag, Fraction, NonNegativeNumber, WholeNumber, section
from avrecog.errors import ConfigError
from avrecog.inputs import AudioVisualInput, MisalignedSounds
from avrecog.models.audio_resnet import Bottleneck
from avrecog.models.input_norm import InputNorm
from avrecog.models.slowfast import (
    DEPTHS,
    FAST_RATIO,
    LONG_RES4_BLOCKS,
    PLACES,
    STAGES,
    FastToSlow,
    PathwaysConfig,
    Place,
    VisualPathways,
    initialise,
)

FUSED = ("res3", "res4")  # after which Audio goes to Slow
AUDIO_RATIO = 2  # the Audio pathway has half of them
FUSION_CHANNELS = 64  # between the two convolutions from audio to vision
EMBEDDING = 64  # features in which sound and picture are compared


@section
class AudioVisualConfig(PathwaysConfig):
    """The keys of a section below `models` that all networks with Slow, Fast and Audio have."""

    mel_frames: Count = 128  # of the log-mel of a view, a multiple of 8 * frames / alpha
    lateral_after: list[Place] = Field(default_factory=lambda: list(PLACES))
    hard_from_epoch: WholeNumber = 0  # until then misaligned sounds are other clips' (easy)
    hard_share: Fraction = 0.25  # of the clips, from then on, whose misaligned sound is their own at another time

    def __post_init__(self) -> None:
        super().__post_init__()
        step = 8 * self.frames // self.alpha
        if self.mel_frames % step:
            raise ConfigError(f"mel_frames: expected a multiple of 8 * frames / alpha ({step}), got {self.mel_frames}")

    @property
    def pathways(self) -> dict[str, Any]:
        """The arguments that every such network takes."""
        return {**super().pathways, "mel_frames": self.mel_frames, "lateral_after": self.lateral_after}

    @property
    def misaligned(self) -> MisalignedSounds:
        """How misaligned sounds are found."""
        return MisalignedSounds(hard_from_epoch=self.hard_from_epoch, hard_share=self.hard_share)


@section
class AVSlowFastConfig(AudioVisualConfig):
    """A section below `models` with architecture `avslowfast`: SlowFast with a pathway for log-mel fused into it."""

    warm_starts: ClassVar = ("slowfast", "avsync")

    architecture: Literal["avslowfast"] = "avslowfast"
    dropout: Fraction = 0.5
    drop_pathway: Fraction = 0.8  # how often, in training, the picture goes without the sound
    drop_scope: Literal["fusion", "pathway"] = "fusion"  # where it is added to Slow; `pathway`: in the classifier too
    drop_per_clip: Flag = False  # one random choice for each clip; false: one for the batch
    sync_weight: NonNegativeNumber = 0.0  # of the synchronisation loss; 0: none

    def input(self) -> AudioVisualInput:
        """A span of frames and its log-mel; a misaligned sound too, where the loss wants one."""
        return AudioVisualInput(
            span=self.span, mel_frames=self.mel_frames, misaligned=self.misaligned if self.sync_weight else None
        )

    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        """An `AVSlowFast`."""
        return AVSlowFast(
            n_classes,
            dropout=self.dropout,
            drop_pathway=self.drop_pathway,
            scope=self.drop_scope,
            per_clip=self.drop_per_clip,
            synchronise=self.sync_weight > 0,
            sync_weight=self.sync_weight,
            **self.pathways,
        )

    def describe(self) -> str:
        """`AVSlowFast-R50 4x16`."""
        return self.named("AVSlowFast")


class TimeFrequencyBlock(nn.Module):
    """3 x 1 and 1 x 3 convolutions beside each other, 1 x 1 on both, and a shortcut."""

    last_norm = "out_bn"

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = 4 * channels
        self.t = nn.Conv2d(in_channels, channels, (3, 1), stride, padding=(1, 0), bias=False)
        self.t_bn = nn.BatchNorm2d(channels)
        self.f = nn.Conv2d(in_channels, channels, (1, 3), stride, padding=(0, 1), bias=False)
        self.f_bn = nn.BatchNorm2d(channels)
        self.out = nn.Conv2d(2 * channels, out_channels, 1, bias=False)
        self.out_bn = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, M) -> (B, 4 * channels, S / stride, M / stride)."""
        time, frequency = torch.relu(self.t_bn(self.t(x))), torch.relu(self.f_bn(self.f(x)))
        out = self.out_bn(self.out(torch.cat([time, frequency], dim=1)))
        return torch.relu(out + self.shortcut(x))


class AudioStem(nn.Module):
    """9 x 1 and 1 x 9 convolutions, summed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_t = nn.Conv2d(1, channels, (9, 1), padding=(4, 0), bias=False)
        self.conv_f = nn.Conv2d(1, channels, (1, 9), padding=(0, 4), bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, 1, S, M) -> (B, channels, S, M)."""
        return torch.relu(self.bn(self.conv_t(log_mel) + self.conv_f(log_mel)))


class AudioToVisual(nn.Module):
    """Two convolutions along time bring the audio, averaged over bands, to Slow's length and channels."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, FUSION_CHANNELS, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm1d(FUSION_CHANNELS)
        self.conv2 = nn.Conv1d(FUSION_CHANNELS, out_channels, 5, stride, padding=2, bias=False)
        self.bn2 = nn.BatchNorm1d(out_channels)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, C, S, M) -> (B, out_channels, S / stride)."""
        x = torch.relu(self.bn1(self.conv1(audio.mean(dim=3))))
        return torch.relu(self.bn2(self.conv2(x)))


@dataclass(frozen=True)
class SyncLevel:
    """What the synchronisation loss compares after one stage, in balls of diameter 1."""

    stage: str
    visual: Tensor  # (B, E)
    positive: Tensor  # (B, E) of the sound that belongs to the picture
    negative: Tensor  # (B, E) of one that doesn't
    fair: Tensor  # (B,) 1 where the picture has not heard the sound yet, else 0


class SyncHead(nn.Module):
    """Picture and sound (B, C, ...) into one space, at most 1 apart: their means over time, or step by step."""

    def __init__(self, channels: int, by_step: bool) -> None:
        super().__init__()
        self.by_step = by_step
        self.visual = nn.Linear(channels, EMBEDDING)
        self.audio = nn.Linear(channels, EMBEDDING)

    def embed_visual(self, joined: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, E); by step (B, T * E)."""
        return self._embed(self.visual, joined.mean(dim=(3, 4)))

    def embed_audio(self, term: Tensor) -> Tensor:
        """(B, C, T) -> (B, E); by step (B, T * E)."""
        return self._embed(self.audio, term)

    def _embed(self, layer: nn.Module, x: Tensor) -> Tensor:
        if not self.by_step:
            return functional.normalize(layer(x.mean(dim=2))) / 2
        return functional.normalize(layer(x.transpose(1, 2)), dim=2).flatten(1) / (2 * x.shape[2] ** 0.5)


class AudioVisualPathways(nn.Module):
    """Slow, Fast and Audio, the convolutions from Audio to Slow, and the heads in which the two are compared.

    Attributes:
        sync: a head for each stage after which sound and picture are compared; empty without `add_sync_heads`.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        width: int = 64,
        frames: int = 32,
        alpha: int = 8,
        lateral_kernel: int = 5,
        mel_frames: int = 128,
        lateral_after: Sequence[str] = PLACES,
        long_res4: int = LONG_RES4_BLOCKS,
    ) -> None:
        """Build with PyTorch's random weights; who adds the rest calls `initialise`.

        Args:
            depth: a key of `DEPTHS`, of the audio pathway too.
            width: channels of Slow's stem, a multiple of 8 (64 in the paper).
            frames: T.
            alpha: Slow sees every alpha-th frame.
            lateral_kernel: of the convolutions from Fast to Slow.
            mel_frames: S, a multiple of 8 times Slow's frames.
            lateral_after: places after which Fast goes to Slow.
            long_res4: so many of res4's blocks have kernels in time.

        Raises:
            ConfigError: where the sound's length and the picture's don't meet.
        """
        super().__init__()
        if frames % alpha or mel_frames % (8 * (frames // alpha)):
            raise ConfigError(
                f"mel_frames: expected frames a multiple of alpha, and mel_frames of 8 * frames / alpha, "
                f"got {frames} frames, alpha {alpha}, {mel_frames} mel frames"
            )
        self._lateral_kernel, self._alpha = lateral_kernel, alpha
        self._rows_per_step = mel_frames // (frames // alpha)  # mel frames for each of Slow's
        self.visual = VisualPathways(
            depth=depth,
            width=width,
            frames=frames,
            alpha=alpha,
            lateral_kernel=lateral_kernel,
            lateral_after=lateral_after,
            long_res4=long_res4,
        )
        self.audio_width = width // AUDIO_RATIO
        self.standardise = InputNorm([0.0], [1.0])
        audio: dict[str, nn.Module] = {"stem": AudioStem(self.audio_width)}
        in_channels = self.audio_width
        for i, (stage, n_blocks) in enumerate(zip(STAGES, DEPTHS[depth], strict=True)):
            block = TimeFrequencyBlock if i < 2 else Bottleneck
            channels = self.audio_width * 2**i
            first = block(in_channels, channels, 1 if i == 0 else 2)
            audio[stage] = nn.Sequential(first, *(block(4 * channels, channels, 1) for _ in range(n_blocks - 1)))
            in_channels = 4 * channels
        self.audio = nn.ModuleDict(audio)
        self.audio_to_visual = nn.ModuleDict(
            {stage: self._to_visual(stage, self.visual.joined_width[stage]) for stage in FUSED}
        )
        self.sync = nn.ModuleDict()

    def add_sync_heads(self, by_step: bool) -> None:
        """Add what compares sound and picture; after res5 nothing is fused, so that has connections of its own.

        Args:
            by_step: compare at each of Slow's frames, instead of the means over time.
        """
        last = self.visual.joined_width["res5"] + 2 * self.visual.fast_width["res5"]
        self.sync.update({stage: SyncHead(self.visual.joined_width[stage], by_step) for stage in FUSED})
        self.sync["res5"] = SyncHead(last, by_step)
        self.sync_fast_to_slow = FastToSlow(self.visual.fast_width["res5"], self._lateral_kernel, self._alpha)
        self.sync_audio_to_visual = self._to_visual("res5", last)

    def head(self, stage: str) -> SyncHead:
        """The head after a stage."""
        head = self.sync[stage]
        assert isinstance(head, SyncHead)
        return head

    def _to_visual(self, stage: str, out_channels: int) -> AudioToVisual:
        i = STAGES.index(stage)
        return AudioToVisual(4 * self.audio_width * 2**i, out_channels, self._rows_per_step // 2**i)


class AVSlowFast(AudioVisualPathways):
    """Frames (B, T, 3, H, W) in 0..1 and their log-mel (B, 1, S, M) -> logits (B, K)."""

    def __init__(
        self,
        n_classes: int,
        *,
        dropout: float = 0.5,
        drop_pathway: float = 0.8,
        scope: Literal["fusion", "pathway"] = "fusion",
        per_clip: bool = False,
        synchronise: bool = False,
        sync_weight: float = 1.0,
        width: int = 64,
        **pathways: Any,
    ) -> None:
        """Build with random weights.

        Args:
            n_classes: K.
            dropout: before the classifier.
            drop_pathway: how often, in training, the picture goes without the sound.
            scope: `fusion` silences the sound where it is added to Slow; `pathway` in the classifier too.
            per_clip: one random choice for each clip instead of one for the batch.
            synchronise: with what the synchronisation loss needs.
            sync_weight: of that loss.
            width: channels of Slow's stem.
            pathways: further arguments of `AudioVisualPathways`.

        Raises:
            ConfigError: where the sound's length and the picture's don't meet.
        """
        super().__init__(width=width, **pathways)
        self.drop_pathway, self.scope, self.per_clip = drop_pathway, scope, per_clip
        self.sync_weight = sync_weight
        if synchronise:
            self.add_sync_heads(by_step=False)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(32 * (width + width // FAST_RATIO + self.audio_width), n_classes)
        initialise(self)

    def forward(
        self, frames: Tensor, log_mel: Tensor, present: Tensor | None = None, misaligned: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; in training with DropPathway and, with a misaligned sound, the synchronisation loss beside them.

        Args:
            frames: (B, T, 3, H, W).
            log_mel: (B, 1, S, M), the frames' own.
            present: (B, 2) 1 where the clip has a picture, and a sound; None: all have both.
            misaligned: (B, 1, S, M), not theirs.
        """
        if not self.training or misaligned is None:
            return self._run(frames, log_mel, present, None)[0]
        logits, levels = self._run(frames, log_mel, present, misaligned)
        usable = usable_pairs(self.standardise(log_mel), self.standardise(misaligned)).to(logits.dtype)
        if present is not None:
            usable = usable * present.prod(dim=1)
        losses = synchronisation_loss(levels, usable).values()
        return logits, self.sync_weight * torch.stack(list(losses)).sum()

    def forward_pairs(self, frames: Tensor, log_mel: Tensor, misaligned: Tensor) -> tuple[Tensor, list[SyncLevel]]:
        """Logits of frames and log_mel, and what the synchronisation loss compares; shapes as in `forward`.

        Raises:
            ConfigError: if the model was made without `synchronise`.
        """
        return self._run(frames, log_mel, None, misaligned)

    def _run(
        self, frames: Tensor, log_mel: Tensor, present: Tensor | None, misaligned: Tensor | None
    ) -> tuple[Tensor, list[SyncLevel]]:
        if misaligned is not None and not self.sync:
            raise ConfigError("synchronise: expected true for a model that compares sound and picture, got false")
        n_clips, visual = frames.shape[0], self.visual
        seen, sounding = (None, None) if present is None else (present[:, :1], present[:, 1:])  # (B, 1)
        audio_mask = self._drop_pathway_mask(n_clips, frames)  # (B, 1)
        if sounding is not None:
            audio_mask = audio_mask * sounding
        both = log_mel if misaligned is None else torch.cat([log_mel, misaligned])
        audio = self.audio["stem"](self.standardise(both))
        slow, fast = visual.stem(frames)
        slow = visual.join("stem", slow, fast)
        levels = []
        fair = torch.ones_like(audio_mask)
        for stage in STAGES:
            slow, fast = visual.stage(stage, slow, fast)
            audio = self.audio[stage](audio)
            slow = visual.join(stage, slow, fast)
            if stage in self.audio_to_visual:
                term = self.audio_to_visual[stage](audio)  # (B or 2 B, C, T / alpha)
                if misaligned is not None:
                    levels.append(self._compare(stage, slow, term, fair))
                    term = term[:n_clips]
                slow = slow + (audio_mask[:, :, None] * term)[:, :, :, None, None]
                fair = 1 - audio_mask
        if misaligned is not None:
            joined = self.sync_fast_to_slow(slow, fast)
            levels.append(self._compare("res5", joined, self.sync_audio_to_visual(audio), fair))
            audio = audio[:n_clips]
        sight = torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)
        sound = audio.mean(dim=(2, 3))
        if seen is not None:
            sight = seen * sight
        if self.scope == "pathway":
            sound = audio_mask * sound
        elif sounding is not None:
            sound = sounding * sound
        features = torch.cat([sight, sound], dim=1)  # (B, D)
        return self.fc(self.dropout(features)), levels

    def _drop_pathway_mask(self, n_clips: int, like: Tensor) -> Tensor:
        """(B, 1) 1 where the picture hears the sound, 0 where DropPathway takes it away; all 1 outside training."""
        if not (self.training and self.drop_pathway):
            return like.new_ones(n_clips, 1)
        coin = torch.rand(n_clips if self.per_clip else 1, device=like.device) >= self.drop_pathway
        return coin.to(like.dtype)[:, None].expand(n_clips, 1)

    def _compare(self, stage: str, joined: Tensor, term: Tensor, fair: Tensor) -> SyncLevel:
        """The embeddings after `stage`; term (2 B, C, T / alpha) has the clips' own sounds first."""
        head = self.head(stage)
        positive, negative = head.embed_audio(term).chunk(2)
        return SyncLevel(stage, head.embed_visual(joined), positive, negative, fair[:, 0])


def synchronisation_loss(levels: Sequence[SyncLevel], usable: Tensor, margin: float = 0.99) -> dict[str, Tensor]:
    """Contrastive loss of each level: own sounds near, others at least `margin` away.

    Args:
        levels: of `AVSlowFast.forward_pairs`.
        usable: (B,) true where both sounds can be told apart, from `usable_pairs`.
        margin: distance from which a wrong sound costs nothing; 1 is the largest there is.

    Returns: a scalar for each stage, 0 where no clip counts.
    """
    losses = {}
    for level in levels:
        weight = usable * level.fair
        near = (level.visual - level.positive).square().sum(dim=1)
        distance = (level.visual - level.negative).norm(dim=1)
        away = (margin - distance).clamp(min=0).square()
        losses[level.stage] = (weight * (near + away)).sum() / (2 * weight.sum() + 1e-8)
    return losses


def usable_pairs(
    log_mel: Tensor, misaligned: Tensor, min_variance: float = 0.01, max_similarity: float = 0.99999
) -> Tensor:
    """(B,) true where neither sound (B, 1, S, M), standardised, is silence and they are not the same."""
    own, other = log_mel.flatten(1), misaligned.flatten(1)
    loud = (own.var(dim=1) > min_variance) & (other.var(dim=1) > min_variance)
    return loud & (functional.cosine_similarity(own, other) < max_similarity)

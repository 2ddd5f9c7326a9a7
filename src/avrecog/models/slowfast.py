"""SlowFast, and AVSlowFast with an audio pathway fused into it.

Feichtenhofer et al., "SlowFast Networks for Video Recognition", 2019; Xiao et al., "Audiovisual SlowFast Networks for
Video Recognition", 2020. AVSlowFast 4 x 16 with ResNet-50, on 32 frames of 224 x 224 and 128 x 80 log-mel; kernels are
time x height x width, or time x mel; sizes after each stage are frames x height x width, or mel frames x mel bands:

| stage | Slow | Fast | Audio |
| --- | --- | --- | --- |
| input | 4 of the frames, 3 x 224^2 | 32 x 224^2 | 128 x 80 |
| stem | 1 x 7^2, 64, pooled: 4 x 56^2 | 5 x 7^2, 8, pooled: 32 x 56^2 | 9 x 1 plus 1 x 9, 32: 128 x 80 |
| res2, 3 blocks | 1, 1 x 3^2, 1; 256: 4 x 56^2 | 3, 1 x 3^2, 1; 32: 32 x 56^2 | 3 x 1 beside 1 x 3, 1; 128: 128 x 80 |
| res3, 4 blocks | 512: 4 x 28^2 | 64: 32 x 28^2 | 256: 64 x 40 |
| res4, 6 blocks | 3, 1 x 3^2, 1; 1024: 4 x 14^2 | 128: 32 x 14^2 | 1 x 1, 3 x 3, 1 x 1; 512: 32 x 20 |
| res5, 3 blocks | 2048: 4 x 7^2 | 256: 32 x 7^2 | 1024: 16 x 10 |

After the stem, res2, res3 and res4 the Fast tensor goes through a convolution along time with stride `alpha` and is
concatenated to Slow. After res3 and res4 the audio, averaged over its bands, goes through two convolutions along time
and is added to Slow at every place of the picture. The classifier stands on the means of all pathways.

What differs from the paper's code (facebookresearch/SlowFast, pull request 219), and why:
- Fast to Slow at all four places, as SlowFast has it, so that its weights load; the pull request's settings have res3
  and res4 only (`lateral_after`).
- The classifier sees global means. The reference classifies every 7 x 7 window of a larger picture and averages the
  probabilities, which is the same on 224 x 224.
- Inputs are standardised by numbers kept with the weights.
- The coin of DropPathway may fall for each clip (`per_clip`), and may silence the classifier's audio too (`scope`).
- Where the loss compares clips, positives and misaligned sounds stay with their own clips; the pull request mixes them
  up in batches of more than one.
Left out, since no reference numbers exist: audio into Fast and then into Slow, and the audiovisual non-local block.

B batch, C channels, T frames, H W height and width, S mel frames, M mel bands, D features, K classes, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avrecog.errors import ConfigError
from avrecog.models.audio_resnet import Bottleneck
from avrecog.models.settings import PLACES
from avrecog.models.standardise import Standardise

DEPTHS: dict[int, tuple[int, int, int, int]] = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
STAGES = ("res2", "res3", "res4", "res5")
FUSED = ("res3", "res4")  # after which Audio goes to Slow
FAST_RATIO = 8  # the Fast pathway has an eighth of Slow's channels
AUDIO_RATIO = 2  # the Audio pathway has half of them
LONG_RES4_BLOCKS = 6  # only the first so many of res4 have kernels in time, where ResNet-101 has 23
FUSION_CHANNELS = 64  # between the two convolutions from audio to vision
EMBEDDING = 64  # features in which sound and picture are compared
SHARPNESS = 10.0  # of AVSync's logits, whose squared distances differ by 1 at most


class Bottleneck3d(nn.Module):
    """t x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, temporal: int) -> None:
        super().__init__()
        out_channels = 4 * channels
        self.a = nn.Conv3d(in_channels, channels, (temporal, 1, 1), padding=(temporal // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(channels)
        self.b = nn.Conv3d(channels, channels, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False)
        self.b_bn = nn.BatchNorm3d(channels)
        self.c = nn.Conv3d(channels, out_channels, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, 4 * channels, T, H / stride, W / stride)."""
        out = torch.relu(self.a_bn(self.a(x)))
        out = torch.relu(self.b_bn(self.b(out)))
        return torch.relu(self.c_bn(self.c(out)) + self.shortcut(x))


class TimeFrequencyBlock(nn.Module):
    """3 x 1 and 1 x 3 convolutions beside each other, 1 x 1 on both, and a shortcut."""

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


class Stem3d(nn.Module):
    """t x 7 x 7 convolution with stride 2 in space, and max pooling with stride 2."""

    def __init__(self, channels: int, temporal: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, channels, (temporal, 7, 7), (1, 2, 2), padding=(temporal // 2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(channels)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, channels, T, H / 4, W / 4)."""
        pooled: Tensor = self.pool(torch.relu(self.bn(self._convolved(frames))))
        return pooled

    def _convolved(self, frames: Tensor) -> Tensor:
        channels, t = self.conv.out_channels, self.conv.kernel_size[0]
        if t == 1 or not self.training or self.conv.weight.device.type != "cpu":
            convolved: Tensor = self.conv(frames)
            return convolved
        # the same sums, a convolution for each tap in time: with all at once PyTorch is a tenth as fast on the CPU
        taps = self.conv.weight.movedim(2, 0).flatten(0, 1).unsqueeze(2)  # (t * channels, 3, 1, 7, 7)
        each = functional.conv3d(frames, taps, None, (1, 2, 2), (0, 3, 3)).unflatten(1, (t, channels))
        padded = functional.pad(each, (0, 0, 0, 0, t // 2, t // 2))  # (B, t, channels, T + t - 1, H / 2, W / 2)
        n_frames = frames.shape[2]
        return torch.stack([padded[:, k, :, k : k + n_frames] for k in range(t)]).sum(dim=0)


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


class FastToSlow(nn.Module):
    """A convolution along time brings Fast to Slow's length; it doubles the channels."""

    def __init__(self, channels: int, kernel: int, alpha: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            channels, 2 * channels, (kernel, 1, 1), (alpha, 1, 1), padding=(kernel // 2, 0, 0), bias=False
        )
        self.bn = nn.BatchNorm3d(2 * channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Slow (B, C, T / alpha, H, W) and the channels made from Fast behind it."""
        return torch.cat([slow, torch.relu(self.bn(self.conv(fast)))], dim=1)


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


class VisualPathways(nn.Module):
    """Slow and Fast, and the connections between them."""

    def __init__(
        self,
        depth: int,
        width: int,
        frames: int,
        alpha: int,
        lateral_kernel: int,
        lateral_after: Sequence[str] = PLACES,
        long_res4: int = LONG_RES4_BLOCKS,
    ) -> None:
        super().__init__()
        self.slow_indices = slow_indices(frames, alpha)
        self.standardise = Standardise([0.45] * 3, [0.225] * 3)
        fast_width = width // FAST_RATIO
        widths = {"stem": (width, fast_width)}  # channels of Slow and Fast after each stage
        widths |= {stage: (4 * width * 2**i, 4 * fast_width * 2**i) for i, stage in enumerate(STAGES)}
        self.fast_to_slow = nn.ModuleDict(
            {place: FastToSlow(widths[place][1], lateral_kernel, alpha) for place in lateral_after}
        )
        # of Slow once Fast has been concatenated to it
        self.joined_width = {
            place: slow + (2 * fast if place in self.fast_to_slow else 0) for place, (slow, fast) in widths.items()
        }
        self.fast_width = {place: fast for place, (_, fast) in widths.items()}
        slow: dict[str, nn.Module] = {"stem": Stem3d(width, 1)}
        fast: dict[str, nn.Module] = {"stem": Stem3d(fast_width, 5)}
        slow_in, fast_in = self.joined_width["stem"], fast_width
        for i, (stage, n_blocks) in enumerate(zip(STAGES, DEPTHS[depth], strict=True)):
            stride = 1 if i == 0 else 2
            long = [i >= 2 and not (i == 2 and block >= long_res4) for block in range(n_blocks)]
            slow[stage] = _stage3d(slow_in, width * 2**i, stride, [3 if is_long else 1 for is_long in long])
            always = [3 if i != 2 or is_long else 1 for is_long in long]
            fast[stage] = _stage3d(fast_in, fast_width * 2**i, stride, always)
            slow_in, fast_in = self.joined_width[stage], self.fast_width[stage]
        self.slow, self.fast = nn.ModuleDict(slow), nn.ModuleDict(fast)

    def stem(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, 3, H, W) in 0..1 -> Slow (B, C, T / alpha, H / 4, W / 4) and Fast (B, C, T, H / 4, W / 4)."""
        x = self.standardise(frames).transpose(1, 2)  # (B, 3, T, H, W)
        slow: Tensor = self.slow["stem"](x[:, :, self.slow_indices])
        return slow, self.fast["stem"](x)

    def stage(self, name: str, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Both tensors through one of `STAGES`."""
        return self.slow[name](slow), self.fast[name](fast)

    def join(self, place: str, slow: Tensor, fast: Tensor) -> Tensor:
        """Slow with Fast concatenated, where they are connected after `place`."""
        if place not in self.fast_to_slow:
            return slow
        joined: Tensor = self.fast_to_slow[place](slow, fast)
        return joined


class SlowFast(nn.Module):
    """Frames (B, T, 3, H, W) in 0..1 -> logits (B, K)."""

    def __init__(
        self,
        n_classes: int,
        depth: int = 50,
        width: int = 64,
        frames: int = 32,
        alpha: int = 8,
        lateral_kernel: int = 5,
        dropout: float = 0.5,
        long_res4: int = LONG_RES4_BLOCKS,
    ) -> None:
        """Build with random weights.

        Args:
            n_classes: K.
            depth: a key of `DEPTHS`.
            width: channels of Slow's stem, a multiple of 8 (64 in the paper).
            frames: T, a multiple of alpha.
            alpha: Slow sees every so manieth frame.
            lateral_kernel: of the convolutions from Fast to Slow.
            dropout: before the classifier.
            long_res4: so many of res4's blocks have kernels in time.
        """
        super().__init__()
        self.visual = VisualPathways(depth, width, frames, alpha, lateral_kernel, long_res4=long_res4)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(32 * width + 32 * (width // FAST_RATIO), n_classes)
        _initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits."""
        visual = self.visual
        slow, fast = visual.stem(frames)
        slow = visual.join("stem", slow, fast)
        for stage in STAGES:
            slow, fast = visual.stage(stage, slow, fast)
            slow = visual.join(stage, slow, fast)
        features = torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)  # (B, D)
        logits: Tensor = self.fc(self.dropout(features))  # (B, K)
        return logits


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


class AVSlowFast(nn.Module):
    """Frames (B, T, 3, H, W) in 0..1 and their log-mel (B, 1, S, M) -> logits (B, K)."""

    def __init__(
        self,
        n_classes: int,
        depth: int = 50,
        width: int = 64,
        frames: int = 32,
        alpha: int = 8,
        lateral_kernel: int = 5,
        mel_frames: int = 128,
        dropout: float = 0.5,
        drop_pathway: float = 0.8,
        scope: Literal["fusion", "pathway"] = "fusion",
        per_clip: bool = False,
        synchronise: bool = False,
        sync_weight: float = 1.0,
        sync_by_step: bool = False,
        lateral_after: Sequence[str] = PLACES,
        long_res4: int = LONG_RES4_BLOCKS,
    ) -> None:
        """Build with random weights.

        Args:
            n_classes: K.
            depth: a key of `DEPTHS`, of the audio pathway too.
            width: channels of Slow's stem, a multiple of 8 (64 in the paper).
            frames: T.
            alpha: Slow sees every so manieth frame.
            lateral_kernel: of the convolutions from Fast to Slow.
            mel_frames: S, a multiple of 8 times Slow's frames.
            dropout: before the classifier.
            drop_pathway: how often, in training, the picture goes without the sound.
            scope: `fusion` silences the sound where it is added to Slow; `pathway` in the classifier too.
            per_clip: a coin for each clip instead of one for the batch.
            synchronise: with what the synchronisation loss needs.
            sync_weight: of that loss.
            sync_by_step: it compares sound and picture at each of Slow's frames, instead of their means over time.
            lateral_after: places after which Fast goes to Slow.
            long_res4: so many of res4's blocks have kernels in time.

        Raises:
            ConfigError: where the sound's length and the picture's don't meet.
        """
        super().__init__()
        slow_frames = frames // alpha
        if frames % alpha or mel_frames % (8 * slow_frames):
            raise ConfigError(
                f"mel_frames: expected frames a multiple of alpha, and mel_frames of 8 * frames / alpha, "
                f"got {frames} frames, alpha {alpha}, {mel_frames} mel frames"
            )
        self.drop_pathway, self.scope, self.per_clip = drop_pathway, scope, per_clip
        self.sync_weight = sync_weight
        self.visual = VisualPathways(depth, width, frames, alpha, lateral_kernel, lateral_after, long_res4)
        audio_width = width // AUDIO_RATIO
        self.standardise = Standardise([0.0], [1.0])
        audio: dict[str, nn.Module] = {"stem": AudioStem(audio_width)}
        in_channels = audio_width
        for i, (stage, n_blocks) in enumerate(zip(STAGES, DEPTHS[depth], strict=True)):
            block = TimeFrequencyBlock if i < 2 else Bottleneck
            channels = audio_width * 2**i
            first = block(in_channels, channels, 1 if i == 0 else 2)
            audio[stage] = nn.Sequential(first, *(block(4 * channels, channels, 1) for _ in range(n_blocks - 1)))
            in_channels = 4 * channels
        self.audio = nn.ModuleDict(audio)

        def to_visual(stage: str, out_channels: int) -> AudioToVisual:
            i = STAGES.index(stage)
            return AudioToVisual(4 * audio_width * 2**i, out_channels, mel_frames // 2**i // slow_frames)

        self.audio_to_visual = nn.ModuleDict(
            {stage: to_visual(stage, self.visual.joined_width[stage]) for stage in FUSED}
        )
        self.sync = nn.ModuleDict()
        if synchronise:  # after res5 nothing is fused: the loss has its own connections there
            last = self.visual.joined_width["res5"] + 2 * self.visual.fast_width["res5"]
            self.sync.update({stage: SyncHead(self.visual.joined_width[stage], sync_by_step) for stage in FUSED})
            self.sync["res5"] = SyncHead(last, sync_by_step)
            self.sync_fast_to_slow = FastToSlow(self.visual.fast_width["res5"], lateral_kernel, alpha)
            self.sync_audio_to_visual = to_visual("res5", last)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(32 * (width + width // FAST_RATIO + audio_width), n_classes)
        _initialise(self)

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
        heard = self._coins(n_clips, frames)  # (B, 1)
        if sounding is not None:
            heard = heard * sounding
        both = log_mel if misaligned is None else torch.cat([log_mel, misaligned])
        audio = self.audio["stem"](self.standardise(both))
        slow, fast = visual.stem(frames)
        slow = visual.join("stem", slow, fast)
        levels = []
        fair = torch.ones_like(heard)
        for stage in STAGES:
            slow, fast = visual.stage(stage, slow, fast)
            audio = self.audio[stage](audio)
            slow = visual.join(stage, slow, fast)
            if stage in self.audio_to_visual:
                term = self.audio_to_visual[stage](audio)  # (B or 2 B, C, T / alpha)
                if misaligned is not None:
                    levels.append(self._compare(stage, slow, term, fair))
                    term = term[:n_clips]
                slow = slow + (heard[:, :, None] * term)[:, :, :, None, None]
                fair = 1 - heard
        if misaligned is not None:
            joined = self.sync_fast_to_slow(slow, fast)
            levels.append(self._compare("res5", joined, self.sync_audio_to_visual(audio), fair))
            audio = audio[:n_clips]
        sight = torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)
        sound = audio.mean(dim=(2, 3))
        if seen is not None:
            sight = seen * sight
        if self.scope == "pathway":
            sound = heard * sound
        elif sounding is not None:
            sound = sounding * sound
        features = torch.cat([sight, sound], dim=1)  # (B, D)
        return self.fc(self.dropout(features)), levels

    def _coins(self, n_clips: int, like: Tensor) -> Tensor:
        """(B, 1) 1 where the picture hears the sound, 0 where DropPathway takes it away; all 1 outside training."""
        if not (self.training and self.drop_pathway):
            return like.new_ones(n_clips, 1)
        coin = torch.rand(n_clips if self.per_clip else 1, device=like.device) >= self.drop_pathway
        return coin.to(like.dtype)[:, None].expand(n_clips, 1)

    def _head(self, stage: str) -> SyncHead:
        head = self.sync[stage]
        assert isinstance(head, SyncHead)
        return head

    def _compare(self, stage: str, joined: Tensor, term: Tensor, fair: Tensor) -> SyncLevel:
        """The embeddings after `stage`; term (2 B, C, T / alpha) has the clips' own sounds first."""
        head = self._head(stage)
        positive, negative = head.embed_audio(term).chunk(2)
        return SyncLevel(stage, head.embed_visual(joined), positive, negative, fair[:, 0])


class AVSync(AVSlowFast):
    """Frames (B, T, 3, H, W) in 0..1 and two sounds (B, 1, S, M) -> (B, 2) logits of which is the frames' own.

    AVSlowFast's pathways, none fused, compared after res3, res4 and res5 as its synchronisation loss compares them. It
    has no classifier, and learns without labels: by picking among the sounds of a batch, where the paper's loss has a
    margin (van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018).
    """

    def __init__(self, **parts: Any) -> None:
        """Build with random weights; `parts` as AVSlowFast's of its pathways."""
        super().__init__(1, drop_pathway=1.0, synchronise=True, **parts)
        del self.fc, self.dropout

    def forward(self, frames: Tensor, first: Tensor, second: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """Logits: `SHARPNESS` times how much nearer the sound is.

        In training the first sound has to be the own one, and a loss comes beside the logits: at each level each
        picture has to find its own sound among all sounds of the batch, the other clips' and the misaligned ones.
        """
        sights, sounds = self._sights(frames), self._sounds(torch.cat([first, second]))
        sight, both, n = _joined(sights), _joined(sounds), frames.shape[0]
        one, other = both[:n], both[n:]
        logits = torch.stack([_nearness(sight, sound) for sound in (one, other)], dim=1)
        if not self.training:
            return logits
        own = torch.arange(len(frames), device=frames.device)
        losses = [
            functional.cross_entropy(-SHARPNESS * _squared_distances(sight, sound), own)
            for sight, sound in zip(sights, sounds, strict=True)
        ]
        return logits, torch.stack(losses).sum()

    def sight(self, frames: Tensor) -> Tensor:
        """(B, E) where the picture lies; at most 1 from where a sound lies."""
        return _joined(self._sights(frames))

    def sound(self, log_mel: Tensor) -> Tensor:
        """(B, E) where the sound lies."""
        return _joined(self._sounds(log_mel))

    def _sights(self, frames: Tensor) -> list[Tensor]:
        visual, found = self.visual, []
        slow, fast = visual.stem(frames)
        slow = visual.join("stem", slow, fast)
        for stage in STAGES:
            slow, fast = visual.stage(stage, slow, fast)
            slow = visual.join(stage, slow, fast)
            if stage in FUSED:
                found.append(self._head(stage).embed_visual(slow))
        return [*found, self._head("res5").embed_visual(self.sync_fast_to_slow(slow, fast))]

    def _sounds(self, log_mel: Tensor) -> list[Tensor]:
        audio, found = self.audio["stem"](self.standardise(log_mel)), []
        for stage in STAGES:
            audio = self.audio[stage](audio)
            if stage in FUSED:
                found.append(self._head(stage).embed_audio(self.audio_to_visual[stage](audio)))
        return [*found, self._head("res5").embed_audio(self.sync_audio_to_visual(audio))]

    def features(self, frames: Tensor, log_mel: Tensor) -> Tensor:
        """(B, D) what a classifier would stand on: the means of Slow, Fast and Audio."""
        visual = self.visual
        slow, fast = visual.stem(frames)
        slow = visual.join("stem", slow, fast)
        audio = self.audio["stem"](self.standardise(log_mel))
        for stage in STAGES:
            slow, fast = visual.stage(stage, slow, fast)
            slow = visual.join(stage, slow, fast)
            audio = self.audio[stage](audio)
        return torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4)), audio.mean(dim=(2, 3))], dim=1)


def _joined(levels: Sequence[Tensor]) -> Tensor:
    """(B, E) of each level, at most 1 apart -> (B, L * E), at most 1 apart."""
    return torch.cat(list(levels), dim=1) / len(levels) ** 0.5


def _nearness(sight: Tensor, sound: Tensor) -> Tensor:
    return -SHARPNESS * (sight - sound).square().sum(dim=1)


def _squared_distances(sight: Tensor, sound: Tensor) -> Tensor:
    """(B, N) of (B, E) and (N, E)."""
    squares = sight.square().sum(dim=1)[:, None] + sound.square().sum(dim=1)[None]
    return squares - 2 * sight @ sound.T


def slow_indices(n_frames: int, alpha: int) -> list[int]:
    """The frames that Slow sees: evenly from the first to the last.

    The reference rounds numpy's linspace down: 0, 10, 20 and 31 of 32 frames at alpha 8.
    """
    n = n_frames // alpha
    return [i * (n_frames - 1) // max(n - 1, 1) for i in range(n)]


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


def _stage3d(in_channels: int, channels: int, stride: int, temporal: Sequence[int]) -> nn.Sequential:
    """Blocks of equal width, one for each kernel length in `temporal`; the first changes the size."""
    first = Bottleneck3d(in_channels, channels, stride, temporal[0])
    return nn.Sequential(first, *(Bottleneck3d(4 * channels, channels, 1, length) for length in temporal[1:]))


def _initialise(model: nn.Module) -> None:
    """Kaiming by fan-out for convolutions, N(0, 0.01) for the classifier, blocks that begin as their shortcuts."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Bottleneck3d):
            nn.init.zeros_(module.c_bn.weight)
        elif isinstance(module, TimeFrequencyBlock):
            nn.init.zeros_(module.out_bn.weight)
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)

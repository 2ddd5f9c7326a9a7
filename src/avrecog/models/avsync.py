"""AVSync: AVSlowFast's pathways, which learn without labels which sound is a picture's own.

B batch, T frames, H W height and width, S mel frames, M mel bands, L levels, E embedding.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avrecog.config import Flag, section
from avrecog.inputs import SyncPairInput
from avrecog.models.avslowfast import FUSED, AudioVisualConfig, AudioVisualPathways
from avrecog.models.slowfast import STAGES, initialise

LOGIT_SCALE = 10.0  # of AVSync's logits, whose squared distances differ by 1 at most


@section
class AVSyncConfig(AudioVisualConfig):
    """A section below `models` with architecture `avsync`: AVSlowFast's pathways, which learn without labels.

    It learns to tell a picture's own sound from another: at another time of the same clip (`hard_share` of the pairs
    from `hard_from_epoch` on; all where it is tested), or of another clip.
    """

    former_keys: ClassVar = ("dropout", "drop_pathway", "drop_scope", "drop_per_clip", "sync_weight")

    architecture: Literal["avsync"] = "avsync"
    sync_by_step: Flag = True  # compare at each of Slow's frames; false: the means over time

    def input(self) -> SyncPairInput:
        """A span of frames and two sounds."""
        return SyncPairInput(span=self.span, mel_frames=self.mel_frames, misaligned=self.misaligned)

    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        """An `AVSync`, which has no classifier."""
        return AVSync(sync_by_step=self.sync_by_step, **self.pathways)

    def describe(self) -> str:
        """`AVSync-R50 4x16`."""
        return self.named("AVSync")


class AVSync(AudioVisualPathways):
    """Frames (B, T, 3, H, W) in 0..1 and two sounds (B, 1, S, M) -> (B, 2) logits of which is the frames' own.

    AVSlowFast's pathways, none fused, compared after res3, res4 and res5 as its synchronisation loss compares them. It
    has no classifier, and learns without labels: by picking among the sounds of a batch, where the paper's loss has a
    margin (van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018).
    """

    def __init__(self, *, sync_by_step: bool = False, **pathways: Any) -> None:
        """Build with random weights.

        Args:
            sync_by_step: compare sound and picture at each of Slow's frames, instead of their means over time.
            pathways: arguments of `AudioVisualPathways`.
        """
        super().__init__(**pathways)
        self.add_sync_heads(sync_by_step)
        initialise(self)

    def forward(self, frames: Tensor, first: Tensor, second: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits: `LOGIT_SCALE` times how much nearer the sound is.

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
            functional.cross_entropy(-LOGIT_SCALE * _squared_distances(sight, sound), own)
            for sight, sound in zip(sights, sounds, strict=True)
        ]
        return logits, torch.stack(losses).sum()

    def embed_video(self, frames: Tensor) -> Tensor:
        """(B, E) where the picture lies; at most 1 from where a sound lies."""
        return _joined(self._sights(frames))

    def embed_audio(self, log_mel: Tensor) -> Tensor:
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
                found.append(self.head(stage).embed_visual(slow))
        return [*found, self.head("res5").embed_visual(self.sync_fast_to_slow(slow, fast))]

    def _sounds(self, log_mel: Tensor) -> list[Tensor]:
        audio, found = self.audio["stem"](self.standardise(log_mel)), []
        for stage in STAGES:
            audio = self.audio[stage](audio)
            if stage in FUSED:
                found.append(self.head(stage).embed_audio(self.audio_to_visual[stage](audio)))
        return [*found, self.head("res5").embed_audio(self.sync_audio_to_visual(audio))]

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
    return -LOGIT_SCALE * (sight - sound).square().sum(dim=1)


def _squared_distances(sight: Tensor, sound: Tensor) -> Tensor:
    """(B, N) of (B, E) and (N, E)."""
    squares = sight.square().sum(dim=1)[:, None] + sound.square().sum(dim=1)[None]
    return squares - 2 * sight @ sound.T

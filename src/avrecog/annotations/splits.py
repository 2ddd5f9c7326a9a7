"""Which clip is for training, which for validation, which for the test."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.settings import DataConfig
from avrecog.annotations.stratified_cut import Cut, cut_off
from avrecog.errors import LeakError, ManifestError

log = logging.getLogger(__name__)


def make_splits(clip_ids: Sequence[str], rows: Sequence[AnnotatedClip], data: DataConfig) -> dict[str, str]:
    """`clip_id -> train, val or test` for every clip.

    With `data.test_fold`, that fold is the test and the others are train. Else the annotation's own splits stand, and a
    clip without one goes where its group goes that has one. Where that leaves no test, a stratified `test_fraction` of
    the clips that still have no split is cut off, and where it leaves no val, a `val_fraction` of those that then have
    none; the others are train. Where every clip has a split, what lacks is cut from train, never from val or test.

    Cuts are seeded and take whole groups only. Where these don't give the fraction, the nearest cut is taken, and one
    line says what was asked and what came.

    Args:
        clip_ids: N names.
        rows: of each clip, with the group that it belongs to.
        data: section `data`.

    Raises:
        ManifestError: if the fold does not exist or a clip has none, or there are too few groups for a split.
        LeakError: if a group stands on two sides.
    """
    labels, groups = [row.label for row in rows], [str(row.group) for row in rows]
    written = [row.split for row in rows]
    if data.test_fold is not None and any(written):
        log.warning("data.test_fold says what the test is, so that the annotation's column `split` is passed over")
    folds = [row.fold for row in rows]
    named = written if data.test_fold is None else _by_fold(clip_ids, folds, data.test_fold)
    known = [index for index, split in enumerate(named) if split is not None]
    check_groups(
        [clip_ids[index] for index in known],
        [groups[index] for index in known],
        [str(named[index]) for index in known],
        "group {group!r}",
    )
    splits = _with_their_groups(groups, named)
    fractions = {"test": data.test_fraction, "val": data.val_fraction}
    to_cut = [name for name in fractions if name not in splits]
    cuts: dict[str, Cut] = {}
    for name in to_cut:
        n_later = len(to_cut) - len(cuts) - 1
        generator = np.random.default_rng([data.seed, 1 if name == "test" else 0])
        cuts[name] = cut_off(labels, groups, splits, fractions[name], n_later=n_later, generator=generator)
        splits = [name if index in cuts[name].clips else split for index, split in enumerate(splits)]
    result = [split or "train" for split in splits]
    for name in ("train", "val", "test"):
        if name not in result:
            raise ManifestError(
                f"split {name} is empty: {len(clip_ids)} clips in {len(set(groups))} groups are too few to cut it off, "
                f"since no group is torn; add clips, name smaller groups, or name each clip's split in a column `split`"
            )
    if known and None in named:
        counted = Counter(split for split, name in zip(result, named, strict=True) if name is None)
        shares = ", ".join(f"{counted[name]} {name}" for name in ("train", "val", "test") if counted[name])
        log.warning("%d of %d clips have no split in the annotation: %s", counted.total(), len(result), shares)
    if any(not cut.is_near for cut in cuts.values()):
        log.warning("%s", _format_cuts(cuts, fractions))
    return dict(zip(clip_ids, result, strict=True))


def _by_fold(clip_ids: Sequence[str], folds: Sequence[int | None], test_fold: int) -> list[str]:
    """Test where the fold is `test_fold`, train elsewhere.

    Raises:
        ManifestError: if no clip has that fold, or a clip has none.
    """
    if test_fold not in folds:
        known = ", ".join(str(fold) for fold in sorted({fold for fold in folds if fold is not None})) or "none"
        raise ManifestError(f"data.test_fold: no clip has fold {test_fold}; the annotation's folds: {known}")
    lacking = [clip_id for clip_id, fold in zip(clip_ids, folds, strict=True) if fold is None]
    if lacking:
        raise ManifestError(
            f"data.test_fold: {len(lacking)} clips have no fold, the first is {lacking[0]}; fill the column"
        )
    return ["test" if fold == test_fold else "train" for fold in folds]


def _with_their_groups(groups: Sequence[str], named: Sequence[str | None]) -> list[str | None]:
    """The splits that are named, each for its whole group; None where no clip of a group has one."""
    of_group = {group: split for group, split in zip(groups, named, strict=True) if split is not None}
    return [split or of_group.get(group) for group, split in zip(groups, named, strict=True)]


def _format_cuts(cuts: Mapping[str, Cut], fractions: Mapping[str, float]) -> str:
    """What was asked for, and what came."""
    asked = " and ".join(f"data.{name}_fraction {fractions[name]:g}" for name in cuts)
    came = "; ".join(
        f"{name} {len(cut.clips) / cut.n_clips_before:.2g} ({len(cut.clips):,} of {cut.n_clips_before:,} clips, "
        f"{cut.n_groups:,} of {cut.n_groups_before:,} groups)"
        for name, cut in cuts.items()
    )
    return f"{asked} can't be had with whole groups and a clip of each class; the nearest: {came}"


def check_groups(clip_ids: Sequence[str], groups: Sequence[str], splits: Sequence[str], what: str) -> None:
    """Refuse clips that belong together and stand in several splits.

    Args:
        clip_ids: N names.
        groups: of each clip, what it belongs to.
        splits: of each clip.
        what: how a group is called: `group {group!r}`.

    Raises:
        LeakError: naming the first groups and their clips in each split.
    """
    members: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for clip_id, group, split in zip(clip_ids, groups, splits, strict=True):
        members[group][split].append(clip_id)
    torn = {group: by_split for group, by_split in members.items() if len(by_split) > 1}
    if not torn:
        return
    lines = []
    for group, by_split in sorted(torn.items())[:10]:
        names = [name for name in ("train", "val", "test") if name in by_split]
        sides = "; ".join(f"{name}: {_shortened(by_split[name])}" for name in names)
        lines.append(f"{what.format(group=group)} stands in {' and in '.join(names)} ({sides})")
    more = [f"and {len(torn) - 10} more"] if len(torn) > 10 else []
    raise LeakError(
        "\n  ".join(
            [
                "clips that belong together (of one source recording, speaker or file) must be in one split, else the "
                "test knows what was learned; correct the annotation's split, fold or group, or drop a row:",
                *lines,
                *more,
            ]
        )
    )


def _shortened(clip_ids: Sequence[str]) -> str:
    more = f" and {len(clip_ids) - 5} more" if len(clip_ids) > 5 else ""
    return f"{', '.join(sorted(clip_ids)[:5])}{more}"


def counts(splits: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """`split -> class -> clips`, for the report."""
    table: dict[str, Counter[str]] = {"train": Counter(), "val": Counter(), "test": Counter()}
    for clip_id, split in splits.items():
        table[split][labels[clip_id]] += 1
    return {split: dict(sorted(by_class.items())) for split, by_class in table.items()}

"""Which clip is for training, which for validation, which for the test."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from avrecog.errors import LeakError, ManifestError

log = logging.getLogger(__name__)


def make_splits(
    clip_ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    annotated: Sequence[str | None],
    folds: Sequence[int | None],
    test_fold: int | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, str]:
    """`clip_id -> train, val or test` for every clip.

    The annotation's own splits stand; with `test_fold`, that fold is the test and the others are train. Where that
    leaves no test, a stratified `test_fraction` is cut off, and where it leaves no val, a `val_fraction` of what is
    train: seeded, whole groups only, never from test.

    Raises:
        ManifestError: if only some clips have a split, the fold does not exist, or a split stays empty.
        LeakError: if a group stands on two sides.
    """
    if test_fold is not None:
        if test_fold not in folds:
            known = ", ".join(str(fold) for fold in sorted({fold for fold in folds if fold is not None})) or "none"
            raise ManifestError(f"data.test_fold: no clip has fold {test_fold}; the annotation's folds: {known}")
        lacking = [clip_id for clip_id, fold in zip(clip_ids, folds, strict=True) if fold is None]
        if lacking:
            raise ManifestError(
                f"data.test_fold: {len(lacking)} clips have no fold, the first is {lacking[0]}; fill the column"
            )
        if any(annotated):
            log.warning("data.test_fold says what the test is, so that the annotation's column `split` is passed over")
        splits = ["test" if fold == test_fold else "train" for fold in folds]
    elif any(annotated):
        lacking = [clip_id for clip_id, split in zip(clip_ids, annotated, strict=True) if split is None]
        if lacking:
            raise ManifestError(
                f"{len(lacking)} clips have no split while others do, the first is {lacking[0]}; fill the column"
            )
        splits = [str(split) for split in annotated]
    else:
        splits = ["train"] * len(clip_ids)
    if "test" not in splits:
        splits = _cut(splits, labels, groups, test_fraction, "test", np.random.default_rng([seed, 1]))
    if "val" not in splits:
        splits = _cut(splits, labels, groups, val_fraction, "val", np.random.default_rng([seed, 0]))
    check_groups(clip_ids, groups, splits, "group {group!r}")
    for name in ("train", "val", "test"):
        if name not in splits:
            raise ManifestError(
                f"split {name} is empty: {len(clip_ids)} clips in {len(set(groups))} groups are too few to cut it off; "
                f"add clips, or raise data.val_fraction or data.test_fraction"
            )
    return dict(zip(clip_ids, splits, strict=True))


def _cut(
    splits: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    fraction: float,
    name: str,
    generator: np.random.Generator,
) -> list[str]:
    """`splits` with a stratified fraction of train renamed, group by group, until each class has given its share."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, split in enumerate(splits):
        if split == "train":
            members[groups[index]].append(index)
    available = Counter(labels[index] for indices in members.values() for index in indices)
    wanted = {label: round(count * fraction) for label, count in available.items()}
    taken: Counter[str] = Counter()
    result = list(splits)
    order = sorted(members)
    for position in generator.permutation(len(order)):
        indices = members[order[position]]
        gives = Counter(labels[index] for index in indices)
        if all(taken[label] + count <= wanted[label] for label, count in gives.items()):
            taken += gives
            for index in indices:
                result[index] = name
    return result


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

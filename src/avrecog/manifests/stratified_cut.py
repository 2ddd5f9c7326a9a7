"""A fraction of the clips, cut off so that every class gives its share and no group is torn; or the nearest to it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.1  # a cut is what was asked for where no more than this part of the clips is missing or too many
MOST_COMPARED = 10**8  # numbers in a step of the search; beyond, groups are taken and put back, but not exchanged


@dataclass(frozen=True)
class Cut:
    """What was taken; nothing where there are too few groups."""

    clips: frozenset[int]  # their indices
    n_groups: int  # taken
    n_clips_before: int  # that there were to take from
    n_groups_before: int
    is_near: bool  # the classes give what was asked for


def cut_off(
    labels: Sequence[str],
    groups: Sequence[str],
    splits: Sequence[str | None],
    fraction: float,
    n_later: int,
    generator: np.random.Generator,
) -> Cut:
    """A stratified fraction of the clips without a split; where each has one, of those in train.

    Whole groups are taken in a random order as long as no class gives more than its share. Where that leaves a class
    out, or far from its share, groups are taken, put back and exchanged, the best step first, until no step comes
    nearer. First, each class keeps a clip in train; then, each that has groups enough comes into this split and can
    come into the later ones; then the classes give as nearly their share as they can. Train never stays empty.

    Args:
        labels: of N clips.
        groups: of N clips.
        splits: of N clips; None where it is still to be found.
        fraction: of the clips, above 0 and below 1.
        n_later: how many more splits will be cut from what is left.
        generator: draws the order, which decides between cuts that are equally near.
    """
    pool = _Pool(labels, groups, splits, fraction, n_later)
    order = generator.permutation(len(pool.names))
    chosen = pool.within_shares(order)
    if not (pool.may_go(chosen.sum()) and pool.has_all(chosen) and pool.is_near(chosen, pool.wanted)):
        chosen = pool.nearest(chosen, order)
    clips = frozenset(
        index for name, is_taken in zip(pool.names, chosen, strict=True) if is_taken for index in pool.members[name]
    )
    n_before = int(pool.n_clips.sum())
    return Cut(clips, int(chosen.sum()), n_before, len(pool.names), bool(pool.is_near(chosen, pool.asked)))


class _Pool:
    """The groups that a split is cut from: G of them, with clips of K classes."""

    def __init__(
        self,
        labels: Sequence[str],
        groups: Sequence[str],
        splits: Sequence[str | None],
        fraction: float,
        n_later: int,
    ) -> None:
        source = None if None in splits else "train"
        self.members: dict[str, list[int]] = defaultdict(list)
        for index, split in enumerate(splits):
            if split == source:
                self.members[groups[index]].append(index)
        self.names = sorted(self.members)
        classes = sorted({labels[index] for indices in self.members.values() for index in indices})
        number = {label: position for position, label in enumerate(classes)}
        self.n_clips = np.zeros((len(self.names), len(classes)), np.int32)  # (G, K)
        for row, name in zip(self.n_clips, self.names, strict=True):
            np.add.at(row, [number[labels[index]] for index in self.members[name]], 1)
        self.has = (self.n_clips > 0).astype(np.int32)  # (G, K)
        in_train = {label for label, split in zip(labels, splits, strict=True) if source is None and split == "train"}
        self.most = len(self.names) - n_later - (not in_train)  # groups that may be taken
        kept = np.array([label in in_train for label in classes], np.int32)  # (K,): train has it anyway
        self.sides = self.has.sum(0) + kept  # (K,): splits that can have the class, at most
        self.goes_here, self.goes_later = self.sides > 1, (self.sides > 2) & (n_later > 0)
        total = self.n_clips.sum(0)
        self.asked = np.array([round(count * fraction) for count in total.tolist()], np.int64)  # (K,)
        most = total + kept - 1 - self.goes_later
        self.wanted = np.clip(self.asked, self.goes_here, np.maximum(most, self.goes_here))

    def within_shares(self, order: np.ndarray) -> np.ndarray:
        """(G,) bool: the groups that fit, one after another, without any class giving more than is wanted."""
        chosen = np.zeros(len(self.names), bool)
        taken = np.zeros_like(self.wanted)
        for position in order:
            if (taken + self.n_clips[position] <= self.wanted)[self.has[position] > 0].all():
                taken += self.n_clips[position]
                chosen[position] = True
        return chosen

    def may_go(self, n_groups: int) -> bool:
        """Whether so many groups are some, and leave enough for the later splits and train."""
        return 1 <= n_groups <= self.most

    def is_near(self, chosen: np.ndarray, expected: np.ndarray) -> bool:
        """Whether the classes give about the (K,) clips expected of them."""
        off = np.abs(self.n_clips[chosen].sum(0) - expected).sum()
        return bool(off <= NEAR * expected.sum())

    def has_all(self, chosen: np.ndarray) -> bool:
        """Whether no class is left out of a split that it could be in."""
        return self._n_left_out(self.has[chosen].sum(0)) == (0, 0)

    def nearest(self, chosen: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(G,) bool: where the steps from `chosen` end, nothing where no cut is possible."""
        n_clips, has, chosen = self.n_clips[order], self.has[order], chosen[order]
        if not self.may_go(chosen.sum()):
            chosen[:] = False
        cost = self._cost(n_clips[chosen].sum(0), has[chosen].sum(0)) if chosen.any() else np.inf
        while True:
            taken, n_taken, sign = n_clips[chosen].sum(0), has[chosen].sum(0), np.where(chosen, -1, 1)[:, None]
            costs = self._cost(taken + sign * n_clips, n_taken + sign * has)
            fits = [self.may_go(chosen.sum() + step) for step in (1, -1)]
            costs[~np.where(chosen, fits[1], fits[0])] = np.inf
            best = [(costs.min(initial=np.inf), [int(costs.argmin())] if len(costs) else [])]
            if chosen.sum() * n_clips.size <= MOST_COMPARED:
                for out in np.flatnonzero(chosen):
                    costs = self._cost(taken - n_clips[out] + n_clips, n_taken - has[out] + has)
                    costs[chosen] = np.inf
                    best.append((costs.min(), [out, int(costs.argmin())]))
            lowest, steps = min(best, key=lambda each: each[0])
            if not lowest < cost:
                break
            cost = lowest
            chosen[steps] ^= True
        result = np.zeros_like(chosen)
        result[order] = chosen
        return result

    def _cost(self, taken: np.ndarray, n_taken: np.ndarray) -> np.ndarray:
        """How far (..., K) clips, of (..., K) groups, are from what is wanted: classes left out weigh most."""
        of_train, of_others = self._n_left_out(n_taken)
        unit = 1.0 + 2 * self.n_clips.sum() + len(self.wanted)
        return (of_train * unit + of_others) * unit + np.abs(taken - self.wanted).sum(-1)

    def _n_left_out(self, n_taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many classes train lacks, and this split and the later ones, where (..., K) groups with each go."""
        left = self.sides - n_taken
        here, later = (n_taken == 0) & self.goes_here, (left < 2) & self.goes_later
        return (left == 0).sum(-1), here.sum(-1) + later.sum(-1)

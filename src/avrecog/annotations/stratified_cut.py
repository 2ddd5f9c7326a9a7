"""A fraction of the clips, cut off so that every class gives its share and no group is torn; or the nearest to it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.1  # a cut is what was asked for where no more than this part of the clips is missing or too many

# numbers that the search compares, of which the time hangs; a whole cut of them takes a few seconds
LARGE = 2 * 10**6  # groups times pairs of group and class: beyond, many groups are taken at once, few exchanges tried
MAX_AT_ONCE = 10**6  # in a step of a large search
MAX_COMPARED = 10**8  # in all steps; then the search ends with the nearest cut so far


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
    *,
    n_later: int,
    generator: np.random.Generator,
) -> Cut:
    """A stratified fraction of the clips without a split; where each has one, of those in train.

    Whole groups are taken in a random order as long as no class gives more than its share. Where that leaves a class
    out, or far from its share, groups are taken, put back and exchanged, the best step first, until no step comes
    nearer, or enough has been compared. First, each class keeps a clip in train; then, each that has groups enough
    comes into this split and can come into the later ones; then the classes give as nearly their share as they can.
    Train never stays empty.

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
    taken, n_taken = pool.sums(chosen)
    if not (pool.may_go(chosen.sum()) and pool.has_all(n_taken) and pool.is_near(taken, pool.wanted)):
        chosen = pool.nearest(chosen, order)
        taken, n_taken = pool.sums(chosen)
    names = [name for name, is_chosen in zip(pool.names, chosen, strict=True) if is_chosen]
    return Cut(
        clips=frozenset(index for name in names for index in pool.members[name]),
        n_groups=len(names),
        n_clips_before=int(pool.n_clips.sum()),
        n_groups_before=len(pool.names),
        is_near=pool.is_near(taken, pool.asked),
    )


class _Pool:
    """The groups that a split is cut from: G of them, with clips of K classes, so that there are P pairs of both."""

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
        classes = {label: number for number, label in enumerate(sorted(set(labels)))}
        self.n_classes = len(classes)
        numbers = [
            position * len(classes) + classes[labels[index]]
            for position, name in enumerate(self.names)
            for index in self.members[name]
        ]
        pairs, self.n_clips = np.unique(np.array(numbers, np.int64), return_counts=True)  # (P,) sorted by group
        self.group, self.label = np.divmod(pairs, len(classes))  # (P,), (P,)
        in_train = {label for label, split in zip(labels, splits, strict=True) if source is None and split == "train"}
        kept = np.array([label in in_train for label in classes], np.int64)  # (K,): train has it anyway
        self.most = len(self.names) - n_later - (not in_train)  # groups that may be taken
        total, n_groups = self.sums(np.ones(len(self.names), bool))
        self.sides = n_groups + kept  # (K,): splits that can have the class, at most
        self.goes_here = (self.sides > 1) & (n_groups > 0)
        self.goes_later = (self.sides > 2) & (n_later > 0)
        self.asked = np.array([round(count * fraction) for count in total.tolist()], np.int64)  # (K,)
        most = np.maximum(total + kept - 1 - self.goes_later, self.goes_here)
        self.wanted = np.clip(self.asked, self.goes_here, most)
        self.unit = 1.0 + 2 * self.n_clips.sum() + 2 * self.n_classes  # above any sum of what weighs less
        self.is_large = len(self.names) * len(self.group) > LARGE
        self.begins = np.searchsorted(self.group, np.arange(len(self.names) + 1))  # of each group's pairs
        self.n_compared = 0  # numbers, by the search

    def sums(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) clips and (K,) groups of each class in the (G,) groups that are chosen."""
        is_in = chosen[self.group]
        n_clips = np.bincount(self.label[is_in], self.n_clips[is_in], self.n_classes).astype(np.int64)
        return n_clips, np.bincount(self.label[is_in], minlength=self.n_classes)

    def within_shares(self, order: np.ndarray) -> np.ndarray:
        """(G,) bool: the groups that fit, one after another, without any class giving more than is wanted."""
        chosen = np.zeros(len(self.names), bool)
        taken = np.zeros_like(self.wanted)
        for position in order:
            pairs = slice(self.begins[position], self.begins[position + 1])
            label, gives = self.label[pairs], self.n_clips[pairs]
            if (taken[label] + gives <= self.wanted[label]).all():
                taken[label] += gives
                chosen[position] = True
        return chosen

    def may_go(self, n_groups: int) -> bool:
        """Whether so many groups are some, and leave enough for the later splits and train."""
        return 1 <= n_groups <= self.most

    def is_near(self, taken: np.ndarray, expected: np.ndarray) -> bool:
        """Whether the classes give about the (K,) clips expected of them."""
        return bool(np.abs(taken - expected).sum() <= NEAR * expected.sum())

    def has_all(self, n_taken: np.ndarray) -> bool:
        """Whether no class is left out of a split that it could be in, where (K,) groups with each are taken."""
        of_train, of_others = self._left_out(n_taken, slice(None))
        return not (of_train.any() or of_others.any())

    def nearest(self, chosen: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(G,) bool: where the steps from `chosen` end; none where no cut is possible."""
        chosen = chosen if self.may_go(chosen.sum()) else np.zeros_like(chosen)
        if self.is_large:
            chosen = self._filled(chosen, order)
        while True:
            n_chosen = int(chosen.sum())
            change = self._change(chosen)
            group = _lowest(change, self._may_turn(chosen), order)
            steps = [(change[group], [group])] if group is not None else []
            for out in self._outs(chosen, change, order):
                without = chosen.copy()
                without[out] = False
                after = self._change(without)
                into = _lowest(after, ~chosen, order)
                if into is not None:
                    steps.append((change[out] + after[into], [out, into]))
            gain, step = min(steps, key=lambda each: each[0], default=(0.0, []))
            if n_chosen and not gain < 0 or not step:
                return chosen
            chosen = chosen.copy()
            chosen[step] ^= True
            if self.n_compared > MAX_COMPARED:
                return chosen

    def _filled(self, chosen: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(G,) bool: groups taken and put back, the best first, a round of many at a time, while any comes nearer."""
        chosen = chosen.copy()
        n_chosen = int(chosen.sum())
        taken, n_taken = self.sums(chosen)
        while self.n_compared <= MAX_COMPARED:
            change = self._change(chosen)
            promising = order[change[order] < 0]
            n_turned = 0
            for position in promising[np.argsort(change[promising], kind="stable")]:
                sign = -1 if chosen[position] else 1
                pairs = slice(self.begins[position], self.begins[position + 1])
                label, gives = self.label[pairs], self.n_clips[pairs]
                self.n_compared += len(label)
                before = self._cost(taken[label], n_taken[label], label)
                after = self._cost(taken[label] + sign * gives, n_taken[label] + sign, label)
                if self.may_go(n_chosen + sign) and (after - before).sum() < 0:
                    taken[label] += sign * gives
                    n_taken[label] += sign
                    n_chosen += sign
                    chosen[position] ^= True
                    n_turned += 1
            if not n_turned:
                break
        return chosen

    def _may_turn(self, chosen: np.ndarray) -> np.ndarray:
        """(G,) whether the groups may be taken, or put back."""
        n_chosen = int(chosen.sum())
        return np.where(chosen, self.may_go(n_chosen - 1), self.may_go(n_chosen + 1))

    def _outs(self, chosen: np.ndarray, change: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The chosen groups that are worth an exchange: all, or of a large pool those that cost least to put back."""
        outs = order[chosen[order]]
        if not self.is_large:
            return outs
        return outs[np.argsort(change[outs], kind="stable")][: MAX_AT_ONCE // len(self.group)]

    def _change(self, chosen: np.ndarray) -> np.ndarray:
        """(G,) by how much the cut comes nearer (below 0) or goes farther if a group is taken, or put back."""
        self.n_compared += len(self.group)
        taken, n_taken = self.sums(chosen)
        sign = np.where(chosen, -1, 1)[self.group]
        after = self._cost(taken[self.label] + sign * self.n_clips, n_taken[self.label] + sign, self.label)
        before = self._cost(taken, n_taken, slice(None))[self.label]
        return np.bincount(self.group, after - before, len(self.names))

    def _cost(self, taken: np.ndarray, n_taken: np.ndarray, label: np.ndarray | slice) -> np.ndarray:
        """How far each class is from what is wanted: being left out weighs most, of train more than of others."""
        of_train, of_others = self._left_out(n_taken, label)
        return (of_train * self.unit + of_others) * self.unit + np.abs(taken - self.wanted[label])

    def _left_out(self, n_taken: np.ndarray, label: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Whether train lacks a class, and how many other splits do that could have it."""
        left = self.sides[label] - n_taken
        here, later = (n_taken == 0) & self.goes_here[label], (left < 2) & self.goes_later[label]
        return (left == 0) & (self.sides[label] > 0), here.astype(np.int64) + later


def _lowest(values: np.ndarray, fits: np.ndarray, order: np.ndarray) -> int | None:
    """The first of `order` among the lowest values that fit."""
    if not fits.any():
        return None
    return int(order[np.where(fits, values, np.inf)[order].argmin()])

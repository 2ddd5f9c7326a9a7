from collections import Counter

import numpy as np
import pytest

from avrecog.annotations import stratified_cut
from avrecog.annotations.stratified_cut import Cut, cut_off

Clips = tuple[list[str], list[str]]  # labels, groups


def clips(n: int, n_groups: int, n_classes: int) -> Clips:
    """Groups of one size, classes at random: no cut is exact."""
    generator = np.random.default_rng(0)
    labels = [f"class {number}" for number in generator.integers(n_classes, size=n)]
    return labels, [f"group {index // (n // n_groups)}" for index in range(n)]


def cut(made: Clips, fraction: float = 0.2, seed: int = 1) -> Cut:
    labels, groups = made
    return cut_off(labels, groups, [None] * len(labels), fraction, n_later=1, generator=np.random.default_rng(seed))


def off(made: Clips, found: Cut, fraction: float = 0.2) -> float:
    """By how many clips a class is off its share, on average."""
    asked = {label: round(count * fraction) for label, count in Counter(made[0]).items()}
    taken = Counter(made[0][index] for index in found.clips)
    return sum(abs(taken[label] - count) for label, count in asked.items()) / len(asked)


@pytest.fixture
def compared(monkeypatch) -> list[int]:
    """How many numbers each step of the search compares, as it happens."""
    seen: list[int] = []
    pool = stratified_cut._Pool
    change = pool._change
    monkeypatch.setattr(pool, "_change", lambda self, chosen: seen.append(len(self.group)) or change(self, chosen))
    return seen


def test_the_work_of_a_large_cut_is_bounded_and_it_comes_near_all_the_same(compared):
    made = clips(20_000, 2_000, 400)
    found = cut(made)
    assert 0 < sum(compared) < 10**8
    assert found.is_near
    assert off(made, found) < 0.6


def test_ten_times_the_clips_are_not_a_hundred_times_the_work(compared):
    per_clip = []
    for n in (6_000, 60_000):
        cut(clips(n, n // 20, 300), fraction=0.05)
        per_clip.append(sum(compared) / n)
        compared.clear()
    assert per_clip[1] < 3 * per_clip[0]


@pytest.mark.parametrize("n_groups", [40, 500])
def test_a_search_that_ends_early_gives_the_nearest_so_far(monkeypatch, n_groups):
    made = clips(4_000, n_groups, 50)
    best = off(made, cut(made))
    monkeypatch.setattr(stratified_cut, "MAX_COMPARED", 1)
    found = cut(made)
    taken = Counter(made[0][index] for index in found.clips)
    assert set(taken) == set(made[0])
    assert best <= off(made, found) < 6


def test_a_large_cut_is_the_same_each_time_and_another_with_another_seed():
    made = clips(6_000, 600, 400)
    assert cut(made).clips == cut(made).clips != cut(made, seed=2).clips


def test_exchanges_come_nearer_than_taking_and_putting_back(monkeypatch):
    made = clips(6_000, 600, 400)
    found = cut(made)
    monkeypatch.setattr(stratified_cut, "MAX_AT_ONCE", 1)
    assert off(made, found) < off(made, cut(made))

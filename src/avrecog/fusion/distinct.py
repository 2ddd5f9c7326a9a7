"""Models that tell the classes apart, copies of one counted once."""

from dataclasses import dataclass

import numpy as np

MIN_RANGE = 1e-7  # a model whose probabilities of a clip never differ by more gives every class the same


@dataclass(frozen=True)
class DistinctModels:
    """Which of M models have scores of their own, in an order that does not depend on the models' order."""

    index: tuple[int, ...]  # one model for each of M' different ones
    copies: tuple[tuple[int, ...], ...]  # all models of the same scores, for each of them

    def spread(self, values: np.ndarray, n_models: int) -> np.ndarray:
        """(M', ...) numbers that add up, as (M, ...): copies share theirs, uniform models have 0."""
        result = np.zeros((n_models, *values.shape[1:]))
        for value, members in zip(values, self.copies, strict=True):
            result[list(members)] = value / len(members)
        return result

    def repeated(self, values: np.ndarray, n_models: int) -> np.ndarray:
        """(M',) numbers as (M,): copies have the same, uniform models have 1."""
        result = np.ones(n_models)
        for value, members in zip(values, self.copies, strict=True):
            result[list(members)] = value
        return result


def find_distinct_models(probabilities: np.ndarray, labels: np.ndarray) -> DistinctModels:
    """The models that tell the classes apart, copies taken together; if none does, all of them as one.

    Args:
        probabilities: (M, N, K).
        labels: (N,) int64, which make the order of the models that of their scores.
    """
    clips = np.arange(len(labels))
    informative = [i for i, table in enumerate(probabilities) if np.ptp(table, axis=1).max() > MIN_RANGE]
    if not informative:
        return DistinctModels((0,), (tuple(range(len(probabilities))),))
    groups: list[list[int]] = []
    for i in informative:
        same = next((group for group in groups if np.array_equal(probabilities[group[0]], probabilities[i])), None)
        if same is None:
            groups.append([i])
        else:
            same.append(i)

    def content(group: list[int]) -> tuple[bytes, bytes]:
        table = probabilities[group[0]]
        return np.sort(table[clips, labels]).tobytes(), np.sort(table, axis=None).tobytes()

    groups.sort(key=content)
    return DistinctModels(tuple(group[0] for group in groups), tuple(tuple(group) for group in groups))

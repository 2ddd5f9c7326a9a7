"""Models that say something, and something of their own."""

from dataclasses import dataclass

import numpy as np

SAME = 1e-7  # probabilities of a model that differ less say nothing


@dataclass(frozen=True)
class Voices:
    """Which of M models say something of their own, in an order that does not hang on the models' order."""

    index: tuple[int, ...]  # one model for each of M' different ones
    copies: tuple[tuple[int, ...], ...]  # all models of the same scores, for each of them

    def spread(self, values: np.ndarray, n_models: int) -> np.ndarray:
        """(M', ...) numbers that add up, as (M, ...): copies share theirs, models that say nothing have 0."""
        result = np.zeros((n_models, *values.shape[1:]))
        for value, members in zip(values, self.copies, strict=True):
            result[list(members)] = value / len(members)
        return result

    def repeated(self, values: np.ndarray, n_models: int) -> np.ndarray:
        """(M',) numbers as (M,): copies have the same, models that say nothing have 1."""
        result = np.ones(n_models)
        for value, members in zip(values, self.copies, strict=True):
            result[list(members)] = value
        return result


def distinct_voices(probabilities: np.ndarray, labels: np.ndarray) -> Voices:
    """The models that say something, copies taken together; if none does, all of them as one."""
    clips = np.arange(len(labels))
    speaking = [i for i, table in enumerate(probabilities) if np.ptp(table, axis=1).max() > SAME]
    if not speaking:
        return Voices((0,), (tuple(range(len(probabilities))),))
    groups: list[list[int]] = []
    for i in speaking:
        same = next((group for group in groups if np.array_equal(probabilities[group[0]], probabilities[i])), None)
        if same is None:
            groups.append([i])
        else:
            same.append(i)

    def content(group: list[int]) -> tuple[bytes, bytes]:
        table = probabilities[group[0]]
        return np.sort(table[clips, labels]).tobytes(), np.sort(table, axis=None).tobytes()

    groups.sort(key=content)
    return Voices(tuple(group[0] for group in groups), tuple(tuple(group) for group in groups))

"""What a fusion method is fitted on. M models, M' of them distinct, N clips, K classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avrecog.fusion.distinct import DistinctModels

if TYPE_CHECKING:
    from avrecog.fusion.settings import Domain, FuseConfig
    from avrecog.fusion.weight_search import WeightTrial


@dataclass(frozen=True, eq=False)
class FitClips:
    """The clips that a method is fitted on."""

    probabilities: np.ndarray  # (M', N, K) float32, of the distinct models
    labels: np.ndarray  # (N,) int64 in [0, K)
    clip_ids: Sequence[str]

    @classmethod
    def of(
        cls,
        probabilities: np.ndarray,
        labels: np.ndarray,
        clip_ids: Sequence[str],
        distinct: DistinctModels,
        kept: np.ndarray | None = None,
    ) -> "FitClips":
        """The distinct ones of (M, N, K) probabilities, of those clips that are True in (N,) booleans `kept`.

        They are copied once, or not at all where nothing is left out.
        """
        if kept is None:
            is_whole = distinct.index == tuple(range(len(probabilities)))
            return cls(probabilities if is_whole else probabilities[list(distinct.index)], labels, clip_ids)
        rows = np.flatnonzero(kept)
        return cls(
            probabilities[np.ix_(np.array(distinct.index), rows)],
            labels[rows],
            [clip_ids[row] for row in rows.tolist()],
        )


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What a method needs to know beside the clips."""

    models: tuple[str, ...]  # the names of all M
    distinct: DistinctModels
    config: "FuseConfig"
    journal: Path | None = None  # of Optuna, for a search that can be resumed; None keeps it in memory

    def equal_weights(self) -> np.ndarray:
        """(M,) equal weights of the distinct models; copies share one, uniform models have 0."""
        n_distinct = len(self.distinct.index)
        return self.spread(np.full(n_distinct, 1 / n_distinct))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(M', ...) numbers that add up, as (M, ...): copies share theirs, uniform models have 0."""
        return self.distinct.spread(values, len(self.models))

    def repeated(self, values: np.ndarray) -> np.ndarray:
        """(M',) numbers as (M,): copies have the same, uniform models have 1."""
        return self.distinct.repeated(values, len(self.models))

    def search_weights(
        self, values: np.ndarray, labels: np.ndarray, domain: "Domain" = "probability"
    ) -> "tuple[np.ndarray, list[WeightTrial]]":
        """The (M',) best weights of (M', N, K) values, and all that were tried, as weights of all M models."""
        from avrecog.fusion.weight_search import search_weights  # late: Optuna takes long to import

        # numbered: Optuna goes through parameters by name, and a copy's name must not change the order
        names = [f"{number} {self.models[index]}" for number, index in enumerate(self.distinct.index, start=1)]
        found = search_weights(values, labels, names, self.config, study_path=self.journal, domain=domain)

        def of_all(coefficients: dict[str, float]) -> dict[str, float]:
            weights = self.spread(np.array([coefficients[name] for name in names]))
            return dict(zip(self.models, weights.tolist(), strict=True))

        weights = np.array([found.coefficients[name] for name in names])
        return weights, [replace(trial, coefficients=of_all(trial.coefficients)) for trial in found.trials]

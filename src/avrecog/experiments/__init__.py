"""Several runs side by side: aggregates, comparisons, sweeps."""

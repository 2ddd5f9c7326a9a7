"""The processes of one training: this one alone, or those that torchrun started."""

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Processes:
    """Which process this is, and of how many."""

    rank: int = 0
    n: int = 1
    n_on_this_machine: int = 1
    index_on_this_machine: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and tracks."""
        return self.rank == 0

    def all_gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks; all must ask."""
        if self.n == 1:
            return [value]
        import torch.distributed  # late: it takes seconds

        values: list[Any] = [None] * self.n
        torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The first process's value; all must ask."""
        if self.n == 1:
            return value
        import torch.distributed

        values = [value if self.is_main else None]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]


def processes() -> Processes:
    """Of this training, by the variables that torchrun sets."""
    names = ("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1), ("LOCAL_RANK", 0)
    return Processes(*(int(os.environ.get(name, alone)) for name, alone in names))

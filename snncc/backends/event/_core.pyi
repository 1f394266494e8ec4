from collections.abc import Mapping
from typing import Any

class Network:
    def __init__(self, data: Any) -> None: ...
    def state_bytes(self) -> int: ...

class Session:
    def __init__(
        self,
        network: Network,
        isa: str | None = None,
        policy: int = 0,
        threads: int = 1,
        runs: int = 1,
        patience: int = 0,
    ) -> None: ...
    def run(
        self, samples: Any, count: int, is_repeated: bool, results: Mapping[int, Any]
    ) -> None: ...
    def work(self) -> list[tuple[int, int, int, int]]: ...

def isas() -> tuple[str, ...]: ...

"""The stop button of a replay: it stops nothing, and says what would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asi_tui.stop import EmergencyStop


class ReplayStop(EmergencyStop):
    """Never pressed: what one sees in a replay is over, and an engine that lives now must not die of a look back."""

    def __init__(self, root: Path, actor: str) -> None:
        super().__init__(root, actor)
        self.tell: Callable[[str], object] = lambda text: None

    def press(self) -> None:
        """Say that nothing here is live. Called from any thread, as the real one is."""
        self.tell(f"replay: nothing here is live; asi kill {self.root.name} stops a live run")

    def hold(self) -> None:
        """Nothing is frozen."""

    def reset(self) -> bool:
        """Nothing was held."""
        return False

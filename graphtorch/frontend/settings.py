"""What modules are set to: their mode and the numbers of their layers (`training`, `p`, `eps`), before a capture.

A function that sets them for a while (`teacher.eval(); ...; teacher.train()`) leaves nothing behind, and what its calls
assume is what they begin with. One that leaves something behind can't be replayed by a graph."""

from __future__ import annotations

from typing import Any

from graphtorch.frontend.guards import GuardSet, is_scalar

# Functions of this package by which programs ask for its settings. What they give is assumed where code mentions them.
QUERIES = (
    "are_deterministic_algorithms_enabled",
    "get_deterministic_debug_mode",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "get_num_threads",
    "is_deterministic_algorithms_warn_only_enabled",
    "is_warn_always_enabled",
)


class ModuleSettings:
    """The scalar attributes of modules as they were."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Any, str, dict[str, Any]]] = {}

    def note(self, module: Any, meaning: str) -> None:
        """Remember a module's."""
        if id(module) not in self._before:
            self._before[id(module)] = module, meaning, {k: v for k, v in vars(module).items() if is_scalar(v)}

    def before(self, module: Any, name: str, now: Any) -> Any:
        """What an attribute was, if it is known."""
        known = self._before.get(id(module))
        return now if known is None else known[2].get(name, now)

    def undo(self) -> list[str]:
        """Put back what has changed; returns what that was."""
        changed: list[str] = []
        for module, meaning, before in self._before.values():
            own = vars(module)
            for name, value in before.items():
                now = own.get(name)
                if now is not value and (type(now) is not type(value) or now != value) and value == value:
                    own[name] = value
                    changed.append(f"{meaning}.{name}")
        return changed


def assume_settings(guards: GuardSet, names: set[str]) -> None:
    """Assume the package's settings that code with these names asks for."""
    import graphtorch

    for name in QUERIES:
        if name in names:
            ask = getattr(graphtorch, name)
            guards.add(f"{guards.name(ask)}() == {ask()!r}", f"{name}() was {ask()!r}")

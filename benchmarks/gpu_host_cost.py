"""What a replayed training step, and an eager operator, cost the host: on a device that records instead of running."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gpu_workloads import BUILDERS, Work


def least(call: Callable[[], Any]) -> float:
    """The shortest of twenty rounds of calls, in microseconds a call."""
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(300):
            call()
        best = min(best, (time.perf_counter() - start) / 300)
    return best * 1e6


def host_cost() -> None:
    """What a replayed training step costs the host, on a device that records instead of running."""
    import graphtorch as torch
    from graphtorch.runtime.cuda.driver import use_driver
    from graphtorch.runtime.cuda.simulated import SimulatedDriver

    use_driver(SimulatedDriver(1, executes=False))
    a, b = torch.ones(10, 10, device="cuda"), torch.ones(10, 10, device="cuda")
    calls: dict[str, Callable[[], Any]] = {
        "a + b": lambda: a + b,
        "a.mul_(0.5)": lambda: a.mul_(0.5),
        "a.sum(1)": lambda: a.sum(1),
        "a @ b": lambda: a @ b,
    }
    print("| eager | microseconds |\n|---|---|")
    for name, call in calls.items():
        print(f"| {name} | {least(call):.1f} |")
    print("\n| step | mode | launches | inputs | microseconds |\n|---|---|---|---|---|")

    def linear(layers: int) -> Work:
        model = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(layers)]).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return Work(lambda x: model(x).square().mean(), [torch.ones(8, 16, device="cuda")], optimizer=optimizer)

    cases: list[tuple[str, Callable[[], Work]]] = [
        *((f"{layers} linear layers, AdamW", lambda layers=layers: linear(layers)) for layers in (1, 4, 12)),
        ("GPT of 12 layers, AdamW", lambda: BUILDERS["gpt"](torch, "cuda", 2, 16, 12, 2, 32, 64)),
    ]
    for name, build in cases:
        for mode in ("default", "reduce-overhead"):
            work = build()
            forward, optimizer = work.forward, work.optimizer

            @torch.compile(mode=mode)  # type: ignore[untyped-decorator, unused-ignore]
            def step(*given: Any, forward: Any = forward, optimizer: Any = optimizer) -> Any:
                optimizer.zero_grad()
                loss = forward(*given)
                loss.backward()
                optimizer.step()
                return loss

            for _ in range(5):
                step(*work.inputs)
            best = least(lambda: step(*work.inputs))  # noqa: B023
            (made,) = step.specializations
            launches = len(made.compiled.executable.sources())
            print(f"| {name} | {mode} | {launches} | {len(made.captured.sources)} | {best:.1f} |", flush=True)

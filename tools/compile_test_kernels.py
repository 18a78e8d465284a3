"""Compiles every kernel that the tests run in Triton's interpreter for every target, without a GPU.

    python tools/compile_test_kernels.py [--targets sm_80,sm_90,sm_100,gfx942] [--kinds] [--share 1/1] [--at FOLDER]
        [TEST ...]

The tests (by default those of the Triton backend and of CUDA devices) run once, and each different kernel that one of
them launches is kept in the folder; then all are compiled. What a target refuses, what needs more than it has and what
spills registers is printed. A run that was stopped goes on where it ended. The exit status is 1 if any kernel does not
compile.

Kernels that are most different come first: one for each set of functions that a source calls, then one for each such
set and types of arguments, then for each of these with other blocks or warps (`--kinds` compiles only these, half of
all), then the others. `--share 1/10` compiles a tenth
of what there is, evenly chosen.

An hour or two on two cores: the tests of the suite compile a choice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from graphtorch.lowering.triton.processes import Job  # noqa: E402

TESTS = ("tests/lowering/triton_backend", "tests/runtime")
TARGETS = "sm_80,sm_90,sm_100,gfx942"


class Recorder:
    """A pytest plugin that writes down each different kernel that is interpreted, with the test that ran it first."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: set[str] = set()
        self.test = ""

    def pytest_sessionstart(self) -> None:
        from graphtorch.lowering.triton import kernels, launch

        interpreted, prepare = kernels._interpreted, launch.InterpreterDevice.prepare

        def load(function: Any, device: Any) -> Any:
            self.note(function)
            return interpreted(function, device)

        def prepared(device: Any, step: Any, arguments: Any) -> Any:
            self.note(step.function)
            return prepare(device, step, arguments)

        kernels._interpreted = load
        launch.InterpreterDevice.prepare = prepared  # type: ignore[method-assign]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.test = nodeid

    def note(self, function: Any) -> None:
        from graphtorch.lowering.triton.codegen import without_comments

        job = Job(
            without_comments(function.source),
            function.name,
            function.signature(),
            dict(function.constants),
            list(function.hints()),
            function.num_warps,
            function.num_stages,
        )
        text = json.dumps(asdict(job))
        digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        if digest not in self.known:
            self.known.add(digest)
            with self.file.open("a") as file:
                file.write(json.dumps({"key": digest, "test": self.test, "job": asdict(job)}) + "\n")


def record(folder: Path, tests: list[str]) -> Path:
    """The kernels of the tests, a line each."""
    import pytest

    kernels = folder / "kernels.jsonl"
    if not kernels.exists():
        os.environ["GRAPHTORCH_CACHE"] = str(folder / "cache")
        unfinished = folder / "kernels.unfinished"
        unfinished.unlink(missing_ok=True)
        status = pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[Recorder(unfinished)])
        if status:
            sys.exit(f"the tests end with status {int(status)}")
        unfinished.rename(kernels)
    return kernels


def compile_for(work: tuple[str, dict[str, Any], str]) -> dict[str, Any]:
    """What became of one kernel on one target."""
    import triton

    from graphtorch.lowering.triton.compiler import check_resources, compile_here, resources, target
    from graphtorch.lowering.triton.errors import ResourceError

    key, job, to = work
    result: dict[str, Any] = {"key": key, "target": to, "registers": 0, "spilled": 0}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = folder
        try:
            compiled = compile_here(Job(**job), target(to))
            check_resources(compiled)
            used = resources(compiled)
            result |= {"registers": used.registers, "spilled": used.spilled}
        except ResourceError as error:
            result["limit"] = str(error)
        except Exception as error:  # whatever the compiler stops with is what this is for
            result["error"] = f"{type(error).__name__}: {error}"
    return result | {"seconds": time.perf_counter() - start}


def shared(lines: list[dict[str, Any]], share: str) -> list[dict[str, Any]]:
    """Every n-th kernel, for "1/n"; the second of each n for "2/n"."""
    part, _, parts = share.partition("/")
    return lines[int(part) - 1 :: int(parts)]


def spread(lines: Iterable[dict[str, Any]], kinds: bool) -> list[dict[str, Any]]:
    """Kernels, the most different ones first; with `kinds` one of each kind only."""
    seen: set[Any] = set()
    ranked: list[list[dict[str, Any]]] = [[], [], [], []]
    for line in lines:
        job = line["job"]
        functions = frozenset(re.findall(r"[a-zA-Z_][\w.]*(?=\()", job["source"].replace(job["name"], "")))
        types = functions, frozenset(job["types"].values())
        blocks = types, *sorted(job["constants"].items()), job["num_warps"], job["num_stages"]
        ranked[sum(level in seen for level in (functions, types, blocks))].append(line)
        seen |= {functions, types, blocks}
    return list(chain.from_iterable(ranked[: 3 if kinds else 4]))


def wanted(
    kernels: Path, targets: list[str], kinds: bool, share: str, done: set[tuple[str, str]]
) -> Iterator[tuple[str, Any, str]]:
    lines = [json.loads(line) for line in kernels.read_text().splitlines()]
    for line in shared(spread(lines, kinds), share):
        for to in targets:
            if (line["key"], to) not in done:
                yield line["key"], line["job"], to


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=TARGETS)
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--share", default="1/1")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--at", type=Path, default=Path("build/test-kernels"))
    parser.add_argument("tests", nargs="*", metavar="TEST")
    args = parser.parse_args()
    args.at.mkdir(parents=True, exist_ok=True)
    return compile_recorded(record(args.at, args.tests or [str(ROOT / t) for t in TESTS]), args)


def compile_recorded(kernels: Path, args: argparse.Namespace) -> int:
    """Compile what was recorded, but for what was compiled before; 1 if something does not compile."""
    results = kernels.with_name("results.jsonl")
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(r["key"], r["target"]) for r in found}
    work = list(wanted(kernels, args.targets.split(","), args.kinds, args.share, done))
    print(f"{len(work)} kernels to compile, {len(found)} done before", flush=True)
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool, results.open("a") as file:
        for result in pool.imap_unordered(compile_for, work):
            found.append(result)
            file.write(json.dumps(result) + "\n")
            file.flush()
    return report(found, kernels)


def report(found: list[dict[str, Any]], kernels: Path) -> int:
    lines = {line["key"]: line for line in map(json.loads, kernels.read_text().splitlines())}
    for result in found:
        line = lines[result["key"]]
        what = result.get("error") or result.get("limit")
        if result["spilled"]:
            what = f"{result['spilled']} bytes of registers are spilled"
        if what:
            print(f"{result['target']}: {line['job']['name']} of {line['test']}: {what.splitlines()[0]}")
    print("| target | kernels | do not compile | too large | spill registers |\n|---|---|---|---|---|")
    count: dict[str, Counter[str]] = {}
    for result in found:
        count.setdefault(result["target"], Counter()).update(
            ["all", *(k for k in ("error", "limit") if k in result), *(["spilled"] if result["spilled"] else [])]
        )
    for to, n in sorted(count.items()):
        print(f"| {to} | {n['all']} | {n['error']} | {n['limit']} | {n['spilled']} |")
    return int(any("error" in r or "limit" in r for r in found))


if __name__ == "__main__":
    sys.exit(main())

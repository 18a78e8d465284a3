"""Everything that only a machine with a GPU can tell, in one command, the most informative first.

    make gpu                                     # installs .[gpu] and pytest, then this
    python tools/check_gpu.py                    # 25 minutes; writes to benchmarks/results/
    python tools/check_gpu.py --minutes 9        # as far as it comes; the same command goes on where this ended
    python tools/check_gpu.py --minutes 9 --resume A --out B    # the results so far are in folder A; all will be in B
    python tools/check_gpu.py --simulate         # no GPU: the same on a simulated device, at toy sizes

In order: what the machine is, and a few launches; the questions of tests/runtime/test_gpu_unproven.py; the tests of
every operator, until half of the time is over; benchmarks/gpu.py. Tests run in several processes of their own. One that
hangs, dies or leaves the device in a state that only its end mends, costs itself: the next process goes on behind it.
What is printed last is the benchmark's table and a short summary; the files have everything.
Results are written as they come, to gpu-checks.json, and what has a result is not run again (`--fresh`:
everything; `--retry`: what failed). The summary is gpu-checks.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = "tests/runtime/test_gpu_unproven.py"
OPERATORS = "tests/runtime/test_gpu_operators.py"
ALONE = ("test_share_of_the_copy_bandwidth", "test_memory_bandwidth_of_a_copy")  # they measure
STUCK = 150.0  # seconds that one test may take between two words of what it does
STARTING = 150.0  # seconds that a process may take before its first test, and between tests
SHARE = 100  # tests that one process gets at most
SKIPPED_ALL = "there is no CUDA device"  # why tests are skipped in a process that found none
GOOD = ("passed", "skipped")
SHOWN = 12  # groups of failures that are printed; the file has them all
SMOKE = """
import subprocess, sys, time, traceback
import graphtorch as torch
why = torch.cuda.why_unavailable()
if why is not None:
    sys.exit(f"no CUDA device: {why}")
import importlib.metadata as m
def version(name):
    try:
        return f"{name} {m.version(name)}"
    except m.PackageNotFoundError:
        return f"no {name}"
print(torch.cuda.get_device_properties(0))
print(*map(version, ("triton", "cuda-core", "cuda-bindings", "numpy", "torch")), sep=", ", end=", ")
print("Python", sys.version.split()[0])
try:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.used,clocks.sm,clocks.max.sm,power.limit"]
    print(subprocess.run([*query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20).stdout.strip())
except Exception as error:
    print(f"no nvidia-smi: {error}")
wrong = 0
def step(name, run):
    global wrong
    start = time.perf_counter()
    try:
        run()
        torch.cuda.synchronize()
        print(f"{name}: right, {time.perf_counter() - start:.2f} s", flush=True)
    except Exception as error:
        wrong += 1
        lines = traceback.format_exc().splitlines()
        print(f"{name}: wrong: {type(error).__name__}: {str(error)[:600]}", *lines[-9:], sep="\\n  ", flush=True)
def copies():
    x = torch.arange(100000.0)
    assert torch.equal(x.cuda().cpu(), x)
def launches():
    x = torch.arange(1000.0, device="cuda")
    assert (x * 2 + 1).sum().item() == 1000 * 999 + 1000
def products():
    a, b = torch.randn(64, 96), torch.randn(96, 48)
    assert ((a.cuda() @ b.cuda()).cpu() - a @ b).abs().max() < 1e-3
    c = (a.bfloat16().cuda() @ b.bfloat16().cuda()).float().cpu()
    assert (c - a @ b).abs().max() < 0.3
def replays():
    f = torch.compile(lambda x: (x * x).sum(1), mode="reduce-overhead")
    for i in range(4):
        x = torch.full((8, 300), float(i), device="cuda")
        assert f(x).tolist() == [300.0 * i * i] * 8
for name, run in (("copies", copies), ("launches", launches), ("products", products), ("CUDA graphs", replays)):
    step(name, run)
sys.exit(bool(wrong))
"""


class Checks:
    """The results so far: an outcome and a text for each test."""

    def __init__(self, folder: Path, simulated: bool, fresh: bool, retry: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = "gpu-checks-simulated" if simulated else "gpu-checks"
        self.file, self.text = folder / f"{self.name}.json", folder / f"{self.name}.md"
        self.found: dict[str, dict[str, Any]] = {}
        if self.file.exists() and not fresh:
            self.found = json.loads(self.file.read_text(encoding="utf-8"))
            if retry:
                self.found = {k: v for k, v in self.found.items() if v["outcome"] in GOOD}
        self.written = 0.0

    def add(self, test: str, outcome: str, text: str = "", seconds: float = 0.0) -> None:
        self.found[test] = {"outcome": outcome, "text": text, "seconds": round(seconds, 2)}
        if time.monotonic() - self.written > 1:  # there are thousands
            self.write()
        if outcome not in GOOD:
            print(f"{outcome}: {test}: {text[:160]}", flush=True)

    def write(self) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.found, indent=0) + "\n", encoding="utf-8")
        os.replace(new, self.file)
        self.written = time.monotonic()

    def report(self) -> str:
        """The summary, which is also written to its file; there with every failure."""
        lines = ["# Checks on a GPU", ""]
        smoke = self.found.get("smoke", {})
        lines += [f"    {line}" for line in smoke.get("text", "not run").splitlines()]
        shown = [line[:300] for line in lines]
        for title, file in (("Questions", QUESTIONS), ("Operators and training steps", OPERATORS)):
            outcomes = Counter(v["outcome"] for k, v in self.found.items() if k.startswith(file))
            counted = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())) or "not run"
            for part in (lines, shown):
                part += ["", f"{title}: {counted}"]
            questions: dict[str, Counter[str]] = {}
            for test, result in self.found.items():
                if test.startswith(file):
                    name = test.split("::")[1].split("[")[0]
                    questions.setdefault(name, Counter())[result["outcome"]] += 1
            if file == QUESTIONS:
                lines.append("")
                for name, counts in questions.items():
                    lines.append(f"- {name}: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
                    if not counts.keys() <= set(GOOD):
                        shown.append(lines[-1])
        measured = [v["text"] for v in self.found.values() if " % of " in v["text"]]
        for part in (lines, shown) if measured else ():
            part += ["", "Measured:", "", *(f"- {text}" for text in measured)]
        failed = {k: v for k, v in self.found.items() if v["outcome"] not in GOOD and k != "smoke"}
        if failed:
            lines += ["", "What did not pass:", ""]
            lines += [f"- {test}: {v['outcome']}: {v['text'][:300]}" for test, v in failed.items()]
            shown += ["", f"What did not pass ({len(failed)}; all in {self.text.name}):", "", *_groups(failed)]
        self.text.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return "\n".join(shown) + "\n"


def _groups(failed: dict[str, dict[str, Any]]) -> list[str]:
    """Failures that begin alike as one line, the most frequent first: what is printed must not push out the rest."""
    groups: dict[str, list[str]] = {}
    for test, v in failed.items():
        groups.setdefault(f"{v['outcome']}: {' '.join(v['text'].split())}"[:60], []).append(test)
    ranked = sorted(groups.values(), key=len, reverse=True)
    lines = []
    for tests in ranked[:SHOWN]:
        first = failed[tests[0]]
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        text = " ".join(first["text"].split())[:200]
        lines.append(f"- {tests[0].split('::')[-1]}{more}: {first['outcome']}: {text}")
    if len(ranked) > SHOWN:
        lines.append(f"- and {sum(map(len, ranked[SHOWN:]))} others")
    return lines


def resume(earlier: Path, folder: Path) -> None:
    """Copy results to a folder that has none of its own yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in earlier.glob("gpu*.json"):
        if not (folder / file.name).exists():
            shutil.copy(file, folder)


def environment(simulated: bool) -> dict[str, str]:
    made = dict(os.environ)
    made["PYTHONPATH"] = os.pathsep.join([str(ROOT), made.get("PYTHONPATH", "")])
    # Many processes at once: none of them needs all cores.
    made.update({name: "2" for name in ("GRAPHTORCH_COMPILE_PROCESSES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
    made["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of other libraries, which may take seconds or the device
    if simulated:
        made["GRAPHTORCH_CUDA"] = "simulated"
    return made


def start(command: list[str], where: dict[str, str], output: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, env=where, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the driver may hold a process whose kernel hangs
        process.wait(timeout=20)


def smoke(checks: Checks, simulated: bool) -> bool:
    """A few launches; whether any were right."""
    with tempfile.TemporaryFile("w+") as output:
        begin = time.monotonic()
        process = start([sys.executable, "-u", "-c", SMOKE], environment(simulated), output)
        said, moved = 0, begin
        while (code := process.poll()) is None and time.monotonic() - moved < STUCK:
            time.sleep(0.05)
            if (size := os.fstat(output.fileno()).st_size) != said:
                said, moved = size, time.monotonic()
        end(process)
        output.seek(0)
        text = output.read().strip()
    print(text, flush=True)
    outcome = "passed" if code == 0 else "failed"
    checks.add("smoke", outcome, text if code is not None else text + "\nhung", time.monotonic() - begin)
    checks.write()
    return "launches: right" in text


def collect(simulated: bool) -> list[str]:
    """The tests marked `gpu`, by their names."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", QUESTIONS, OPERATORS]
    done = subprocess.run(command, cwd=ROOT, env=environment(simulated), capture_output=True, text=True, timeout=180)
    found = [line for line in done.stdout.splitlines() if line.startswith("tests/") and "::" in line]
    if not found:
        sys.exit(f"no tests were found:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


class Pytest:
    """One process of pytest and what it tells of its tests, line by line, through a file."""

    def __init__(self, tests: list[str], simulated: bool) -> None:
        self.log = Path(tempfile.mkdtemp(prefix="graphtorch-gpu-")) / "tests.jsonl"
        self.log.touch()
        self.read = 0
        self.running: str | None = None
        self.doing = ""
        self.moved = time.monotonic()
        self.left = deque(tests)
        self.count = len(tests)
        where = {**environment(simulated), "GRAPHTORCH_TEST_LOG": str(self.log)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]
        self.process = start(command, where, subprocess.DEVNULL)

    def news(self) -> Iterable[dict[str, Any]]:
        """What has become known since the last time."""
        with self.log.open(encoding="utf-8") as file:
            file.seek(self.read)
            while (line := file.readline()).endswith("\n"):
                self.read = file.tell()
                entry = json.loads(line)
                self.moved = time.monotonic()
                if "outcome" not in entry:
                    self.running, self.doing = entry["test"], entry.get("doing", "")
                    continue
                if entry["test"] in self.left:
                    self.left.remove(entry["test"])
                self.running = None
                yield entry


def run_tests(checks: Checks, tests: list[str], processes: int, until: float, simulated: bool) -> None:
    """Run tests in several processes until a time. Each process gets some, and those that it leaves go to another."""
    missing = [t for t in tests if t not in checks.found]
    share = max(min(-(-len(missing) // max(processes, 1)), SHARE), 1)
    shares = -(-len(missing) // share)
    if shares <= processes:  # all at once: of neighbours, which take long together, each process gets some
        missing = [t for i in range(shares) for t in missing[i::shares]]
    waiting = deque(missing)
    working: list[Pytest] = []
    try:
        while (waiting or working) and time.monotonic() < until:
            while waiting and len(working) < processes:
                working.append(Pytest([waiting.popleft() for _ in range(min(share, len(waiting)))], simulated))
            time.sleep(0.1)
            for one in list(working):
                over = one.process.poll() is not None
                for entry in one.news():
                    lost = entry["outcome"] == "skipped" and SKIPPED_ALL in entry["text"]
                    checks.add(entry["test"], "lost" if lost else entry["outcome"], entry["text"], entry["seconds"])
                if not over and time.monotonic() - one.moved < (STARTING if one.running is None else STUCK):
                    continue
                end(one.process)
                working.remove(one)
                if one.running is not None:
                    why = f"ended with {one.process.returncode}" if over else f"took longer than {STUCK:.0f} s"
                    checks.add(one.running, "lost", f"its process {why}{one.doing and ': '}{one.doing}")
                    one.left.remove(one.running)
                elif len(one.left) == one.count:  # not even the first was begun
                    for test in one.left:
                        checks.add(test, "lost", f"pytest ended with {one.process.returncode}")
                    one.left.clear()
                waiting.extendleft(reversed(one.left))
    finally:
        checks.write()
        for one in working:
            end(one.process)


def benchmark(options: argparse.Namespace, minutes: float) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--minutes", f"{minutes:.2f}"]
    command += ["--out", str(options.out)]
    flags = {"--simulate": options.simulate, "--fresh": options.fresh, "--retry": options.retry}
    command += [flag for flag, wanted in flags.items() if wanted]
    print(" ".join(command), flush=True)
    subprocess.run(command, cwd=ROOT, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=25.0, help="how long it may take")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="the folder of the results")
    parser.add_argument("--resume", type=Path, help="the folder of an earlier call's results, if it is another one")
    parser.add_argument("--processes", type=int, default=max(min((os.cpu_count() or 2) - 2, 12), 1))
    parser.add_argument("--only", default="", help="tests whose name contains this, and no benchmark")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument("--simulate", action="store_true", help="a simulated device, toy sizes")
    options = parser.parse_args()
    begin = time.monotonic()
    until = begin + 60 * options.minutes
    if options.resume is not None:
        resume(options.resume, options.out)
    checks = Checks(options.out, options.simulate, options.fresh, options.retry)
    if not smoke(checks, options.simulate):
        print(checks.report())
        sys.exit("the first launches went wrong: the rest was not tried")
    tests = [t for t in collect(options.simulate) if options.only in t]
    alone = [t for t in tests if t.split("::")[1].split("[")[0] in ALONE]
    questions = [t for t in tests if t.startswith(QUESTIONS) and t not in alone]
    operators = [t for t in tests if t.startswith(OPERATORS) and t not in alone]
    half = until if options.only else begin + 30 * options.minutes
    run_tests(checks, questions, options.processes, half, options.simulate)
    run_tests(checks, alone, 1, half, options.simulate)
    checks.report()
    run_tests(checks, operators, options.processes, half, options.simulate)
    checks.report()
    if not options.only:
        benchmark(options, (until - time.monotonic()) / 60)
    print(checks.report())
    left = [t for t in tests if t not in checks.found]
    if left:
        print(f"{len(left)} of {len(tests)} tests are left: the same command goes on with them")
    sys.exit(any(v["outcome"] not in GOOD for v in checks.found.values()))


if __name__ == "__main__":
    main()

"""Runs PyTorch's own sample inputs (`op_db`, `module_db` and `optim_db` of its tests) here and there, and compares.

    python tools/compare_with_samples.py [--only add,nn.LSTM] [--modes eager,error,cpu,numpy] [--most 30]
        [--dtypes float32,int64] [--verbose]

Modes: `eager` is the call, its gradient, and where there are such the method, the in-place form and `out=`; `error` are
calls that PyTorch refuses, of which the exception's class must be the same; a backend's name is the same call compiled,
forward and gradient in one function, against eager execution here.

Needs PyTorch 2.13 and the package `expecttest`. Prints what differs and a table in Markdown, the one in
docs/samples.md; the exit status is 1 if anything differs that tests/differential/known_differences.py does not explain.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "differential")]

DTYPES = "float32,float64,int64,bool,bfloat16,complex64,complex128,uint8,int32,float16"


def operators(mode: str, dtypes: Sequence[Any], most: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    import sample_runs
    from torch.testing._internal.common_methods_invocations import op_db

    for info in op_db:
        if mode == "eager":
            yield info.name, lambda info=info: sample_runs.run_eager(info, tuple(dtypes), most)
        elif mode == "error":
            yield info.name, lambda info=info: sample_runs.run_errors(info)
        else:
            yield info.name, lambda info=info: sample_runs.run_compiled(info, mode, tuple(dtypes), min(most, 2))


def modules(mode: str, dtypes: Sequence[Any], most: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    import module_runs
    from torch.testing._internal.common_modules import module_db

    for info in module_db:
        if mode == "error":
            yield info.name, lambda info=info: module_runs.run_module_errors(info)
        elif mode == "eager":
            yield info.name, lambda info=info: module_runs.run_module(info, tuple(dtypes), None, most)
        else:
            yield info.name, lambda info=info: module_runs.run_module(info, tuple(dtypes), mode, min(most, 2))


def optimizers(mode: str, dtypes: Sequence[Any], most: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    import module_runs
    from torch.testing._internal.common_optimizers import optim_db

    for info in optim_db:
        name = info.optim_cls.__name__
        if mode == "error":
            yield name, lambda info=info: module_runs.run_optimizer_errors(info)
        else:
            yield name, lambda info=info: module_runs.run_optimizer(info, None if mode == "eager" else mode)


TABLES = {"operators": operators, "modules": modules, "optimizers": optimizers}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", default=[*TABLES], help="operators, modules, optimizers (default: all)")
    parser.add_argument("--only", default="", help="names in the tables")
    parser.add_argument("--modes", default="eager,error,cpu,numpy", help="(default: %(default)s)")
    parser.add_argument("--dtypes", default=DTYPES, help="(default: %(default)s)")
    parser.add_argument("--most", type=int, default=30, help="samples of an operator and dtype (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="also what is missing, known or not run")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    try:
        import torch
        from known_differences import reason_of, unknown
        from sample_runs import without_sample
    except ImportError as error:
        sys.exit(f"PyTorch or expecttest is not installed: {error}")

    torch.set_num_threads(1)
    dtypes = [getattr(torch, name) for name in args.dtypes.split(",")]
    only = set(args.only.split(",")) - {""}
    rows, failed = [], False
    for table in args.tables:
        for mode in args.modes.split(","):
            entries, calls, known, other = 0, 0, 0, 0
            for name, run in TABLES[table](mode, dtypes, args.most):
                if only and name not in only:
                    continue
                count = run()
                new = unknown(count)
                entries += not count.missing
                calls += sum(count.runs.values())
                known += len(count.differences) - len(new)
                other += len(new)
                for text, times in Counter(map(without_sample, new)).items():
                    first = next(d for d in new if without_sample(d) == text)
                    print(f"{first}{f' (and {times - 1} like it)' if times > 1 else ''}", flush=True)
                if args.verbose:
                    if count.missing:
                        print(f"{count.name}: not here ({count.missing})")
                    for text, times in Counter(count.skipped).items():
                        print(f"{count.name} [{mode}]: {text} ({times})")
                    for reason in {reason_of(d) for d in count.differences} - {None}:
                        print(f"{count.name} [{mode}]: known: {reason}")
            failed |= other > 0
            rows.append(f"| {table} | {mode} | {entries} | {calls:,} | {known:,} | {other:,} |")
    print("| | mode | entries | calls | known differences | others |\n|---|---|---|---|---|---|", *rows, sep="\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

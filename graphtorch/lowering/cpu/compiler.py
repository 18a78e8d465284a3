"""From LLVM text to functions in memory: one object file a module, kept on disk, loaded through LLVM's ORC JIT.

Code is generated without optimisation passes: the text is vectorised and hoisted already, and the passes would take
longer than everything else together. The object cache is keyed by the text, the host CPU's features and LLVM's
version. A cache that can't be read or written, or holds garbage, only costs the time to compile again: entries carry
a checksum and are renamed into place whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from graphtorch.lowering.cpu import helpers
from graphtorch.lowering.cpu.function import Function

logger = logging.getLogger(__name__)

_lock = threading.RLock()
_warned = False
OPTIMIZATION = 2  # of code generation


@dataclass(frozen=True)
class Host:
    """The CPU that code is generated for. `register_bits` is the width of its vectors."""

    triple: str
    cpu: str
    features: str
    register_bits: int
    fma: bool


@cache
def host() -> Host:
    """This machine's CPU. Raises ImportError without llvmlite."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    known: Any = llvm.get_host_cpu_features()
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        bits, fma = 128, True
    else:
        bits = 512 if known.get("avx512f") and known.get("avx512vl") else 256 if known.get("avx2") else 128
        fma = bool(known.get("fma"))
    return Host(llvm.get_default_triple(), llvm.get_host_cpu_name(), known.flatten(), bits, fma)


def module_text(functions: Iterable[Function], extra: str = "", declarations: Iterable[str] = ()) -> str:
    """The text of a module: functions, the helpers they call, declarations and attributes."""
    target = host()
    texts: dict[str, str] = {}
    declared: set[str] = set(declarations)
    wanted: list[tuple[str, str, int]] = []
    for function in functions:
        texts[function.name] = function.text
        declared |= function.declarations
        wanted.extend(sorted(function.helpers))
    made: dict[tuple[str, str, int], str] = {}
    while wanted:
        key = wanted.pop()
        if key not in made:
            made[key], needs, more = helpers.definition(*key, target.fma)
            declared |= needs
            wanted.extend(sorted(more))
    attributes = (
        f'attributes #0 = {{ nounwind "prefer-vector-width"="{target.register_bits}" "target-cpu"="{target.cpu}" '
        f'"target-features"="{target.features}" }}'
    )
    return "\n".join([*texts.values(), *(made[k] for k in sorted(made)), extra, *sorted(declared), attributes, ""])


# -- the cache --------------------------------------------------------------------------------------------------------


def cache_folder() -> Path | None:
    """The folder of object files: GRAPHTORCH_CACHE (none if that is empty), else in the user's cache folder."""
    chosen = os.environ.get("GRAPHTORCH_CACHE")
    if chosen is not None:
        return Path(chosen) / "cpu" if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "graphtorch" / "cpu"
    except RuntimeError:  # no home folder
        return None


def _warn(action: str, error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        logger.warning("the compiled-code cache can't be %s (%s): compiling without it", action, error)


def _read(path: Path) -> bytes | None:
    """An entry's object code; None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn("read", error)
        return None
    digest, code = content[:32], content[32:]
    if hashlib.blake2b(code, digest_size=32).digest() != digest:
        logger.info("ignoring a damaged cache entry %s", path)
        return None
    return code


def _write(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.blake2b(code, digest_size=32).digest())
                file.write(code)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        _warn("written", error)


# -- compiling --------------------------------------------------------------------------------------------------------


@cache
def _machine() -> Any:
    import llvmlite.binding as llvm

    target = host()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=OPTIMIZATION, reloc="pic", codemodel="jitdefault", jit=True
    )


@cache
def _jit() -> Any:
    """The one JIT of the process."""
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(_machine(), use_jit_link=False, suppress_errors=False)


_count = 0


class Library:
    """Functions compiled from one module. Keep it as long as they may run.

    seconds     what compiling took; 0 if the object code came from the cache
    """

    def __init__(self, text: str, exported: Iterable[str], imported: dict[str, int] | None = None) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        global _count
        self.text = text
        self.seconds = 0.0
        target = host()
        key = hashlib.blake2b(
            "\0".join(
                (text, target.triple, target.cpu, target.features, llvmlite.__version__, str(OPTIMIZATION))
            ).encode(),
            digest_size=20,
        ).hexdigest()
        folder = cache_folder()
        path = None if folder is None else folder / key[:2] / f"{key}.o"
        with _lock:
            code = None if path is None else _read(path)
            if code is None:
                start = time.perf_counter()
                module = llvm.parse_assembly(text)
                module.verify()  # code generation would abort the process where this raises
                code = _machine().emit_object(module)
                self.seconds = time.perf_counter() - start
                if path is not None:
                    _write(path, code)
            builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
            for name, address in (imported or {}).items():
                builder.import_symbol(name, address)
            names = list(exported)
            for name in names:
                builder.export_symbol(name)
            _count += 1
            self._tracker = builder.link(_jit(), f"graphtorch{_count}")
        self.addresses: dict[str, int] = {name: self._tracker[name] for name in names}

    def assembly(self) -> str:
        """The machine code of the whole module as assembly text; generated anew."""
        import llvmlite.binding as llvm

        with _lock:
            return str(_machine().emit_assembly(llvm.parse_assembly(self.text)))

"""From LLVM text to functions in memory: one object file a module, kept on disk, loaded through LLVM's ORC JIT.

Code is generated without optimisation passes: the text is vectorised and hoisted already, and the passes would take
longer than everything else together. The object cache is keyed by the text, the host CPU's features and LLVM's
version. A cache that can't be read or written, or holds garbage, only costs the time to compile again: entries carry
a checksum and are renamed into place whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
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
PART_CHARACTERS = 120_000  # of text that are worth a module of their own: some 0.1 s of compiling
LARGEST_PARTS = 8


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


def module_parts(functions: Iterable[Function], extra: str) -> list[str]:
    """The same as several modules, where it is long enough for threads to share the work; `extra`, which calls the
    functions, is in the last."""
    unique = {f.name: f for f in functions}
    count = min(sum(len(f.text) for f in unique.values()) // PART_CHARACTERS, LARGEST_PARTS)
    if count < 2:
        return [module_text(unique.values(), extra)]
    parts: list[list[Function]] = [[] for _ in range(count)]
    sizes = [0] * count
    sizes[-1] = len(extra)
    for function in sorted(unique.values(), key=lambda f: (-len(f.text), f.name)):
        lightest = sizes.index(min(sizes))
        parts[lightest].append(function)
        sizes[lightest] += len(function.text)
    elsewhere = [f"declare void @{f.name}(ptr, i64, i64)" for part in parts[:-1] for f in part]
    return [*(module_text(part) for part in parts[:-1]), module_text(parts[-1], extra, elsewhere)]


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


def _new_machine() -> Any:
    import llvmlite.binding as llvm

    target = host()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=OPTIMIZATION, reloc="pic", codemodel="jitdefault", jit=True
    )


@cache
def _machine() -> Any:
    return _new_machine()


@cache
def _jit() -> Any:
    """The one JIT of the process."""
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(_machine(), use_jit_link=False, suppress_errors=False)


def _compile(texts: Sequence[str]) -> list[bytes]:
    """Object code of modules, in threads where there are several."""
    from concurrent.futures import ThreadPoolExecutor

    import llvmlite.binding as llvm

    def checked(module: Any) -> Any:
        module.verify()  # code generation would abort the process where this raises
        return module

    emit = _unlocked_emission() if len(texts) > 1 else None
    if emit is None:
        return [_machine().emit_object(checked(llvm.parse_assembly(text))) for text in texts]
    # LLVM works on several modules at a time if each has a context and a target machine of its own.
    contexts = [llvm.create_context() for _ in texts]
    modules = [checked(llvm.parse_assembly(t, context=c)) for t, c in zip(texts, contexts, strict=True)]
    machines = [_new_machine() for _ in texts]
    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(emit, machines, modules))


@cache
def _unlocked_emission() -> Callable[[Any, Any], bytes] | None:
    """`emit_object(machine, module)` without llvmlite's lock, which lets one thread at a time into LLVM; None where
    llvmlite is not built as expected. What it returns is read and freed under the lock."""
    from llvmlite.binding import ffi

    try:
        library = ctypes.CDLL(ffi.lib._lib_handle._name)
        emit = library.LLVMPY_TargetMachineEmitToMemory
    except (AttributeError, OSError):
        return None
    emit.restype = ctypes.c_void_p
    emit.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    start = ffi.lib.LLVMPY_GetBufferStart
    size = ffi.lib.LLVMPY_GetBufferSize
    dispose = ffi.lib.LLVMPY_DisposeMemoryBuffer

    def run(machine: Any, module: Any) -> bytes:
        error = ctypes.c_char_p()
        made = emit(ctypes.cast(machine._ptr, ctypes.c_void_p), ctypes.cast(module._ptr, ctypes.c_void_p), 1, error)
        if not made:
            raise RuntimeError((error.value or b"code generation failed").decode(errors="replace"))
        buffer = ctypes.cast(made, ffi.LLVMMemoryBufferRef)
        try:
            return ctypes.string_at(start(buffer), size(buffer))
        finally:
            dispose(buffer)

    return run


_count = 0


class Library:
    """Functions compiled from modules that refer to each other. Keep it as long as they may run.

    seconds     what compiling took; 0 if the object code came from the cache
    """

    def __init__(self, texts: Sequence[str], exported: Iterable[str], imported: dict[str, int] | None = None) -> None:
        import llvmlite.binding as llvm

        global _count
        self.texts = list(texts)
        self.seconds = 0.0
        paths = [_path(text) for text in self.texts]
        with _lock:
            codes = [None if path is None else _read(path) for path in paths]
            missing = [i for i, code in enumerate(codes) if code is None]
            if missing:
                start = time.perf_counter()
                for i, made in zip(missing, _compile([self.texts[i] for i in missing]), strict=True):
                    codes[i] = made
                    path = paths[i]
                    if path is not None:
                        _write(path, made)
                self.seconds = time.perf_counter() - start
            builder = llvm.JITLibraryBuilder().add_current_process()
            for code in codes:
                builder.add_object_img(code)
            for name, address in (imported or {}).items():
                builder.import_symbol(name, address)
            names = list(exported)
            for name in names:
                builder.export_symbol(name)
            _count += 1
            self._tracker = builder.link(_jit(), f"graphtorch{_count}")
        self.addresses: dict[str, int] = {name: self._tracker[name] for name in names}

    def assembly(self) -> str:
        """The machine code of all modules as assembly text; generated anew."""
        import llvmlite.binding as llvm

        with _lock:
            return "\n".join(str(_machine().emit_assembly(llvm.parse_assembly(text))) for text in self.texts)


def _path(text: str) -> Path | None:
    """Where a module's object code is kept."""
    import llvmlite

    folder = cache_folder()
    if folder is None:
        return None
    target = host()
    what = (text, target.triple, target.cpu, target.features, llvmlite.__version__, str(OPTIMIZATION))
    key = hashlib.blake2b("\0".join(what).encode(), digest_size=20).hexdigest()
    return folder / key[:2] / f"{key}.o"

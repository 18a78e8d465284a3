"""From LLVM text to functions in memory: one object file a module, kept on disk, loaded through LLVM's ORC JIT.

Code is generated without optimisation passes: the text is vectorised and hoisted already, and the passes would take
longer than everything else together. Object files are kept by the text, the host CPU's features and LLVM's version.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache as once
from typing import Any

from graphtorch.lowering import cache
from graphtorch.lowering.cpu import helpers
from graphtorch.lowering.cpu.function import Function

_lock = threading.RLock()
OPTIMIZATION = 2  # of code generation
PART_CHARACTERS = 120_000  # of text that are worth a module of their own: some 0.1 s of compiling
LARGEST_PARTS = 8
SUFFIX = ".o"  # of the entries of object code


@dataclass(frozen=True)
class Host:
    """The CPU that code is generated for. `register_bits` is the width of its vectors."""

    triple: str
    cpu: str
    features: str
    register_bits: int
    fma: bool


@once
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


# -- compiling --------------------------------------------------------------------------------------------------------


def _new_machine() -> Any:
    import llvmlite.binding as llvm

    target = host()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=OPTIMIZATION, reloc="pic", codemodel="jitdefault", jit=True
    )


@once
def _machine() -> Any:
    return _new_machine()


@once
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


@once
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

    keys        the modules' keys: `from_cache` finds their code by them
    seconds     what compiling took; 0 if the object code came from the cache
    """

    def __init__(self, texts: Sequence[str], exported: Iterable[str], imported: dict[str, int] | None = None) -> None:
        self.keys = [_key(text) for text in texts]
        self.seconds = 0.0
        paths = [cache.place("cpu", key, SUFFIX) for key in self.keys]
        with _lock:
            codes = [None if path is None else cache.read(path) for path in paths]
            missing = [i for i, code in enumerate(codes) if code is None]
            if missing:
                start = time.perf_counter()
                for i, made in zip(missing, _compile([texts[i] for i in missing]), strict=True):
                    codes[i] = made
                    path = paths[i]
                    if path is not None:
                        cache.write(path, made)
                self.seconds = time.perf_counter() - start
            self._link([code for code in codes if code is not None], exported, imported or {})

    @classmethod
    def from_cache(cls, keys: Sequence[str], exported: Iterable[str], imported: dict[str, int]) -> Library | None:
        """The library of modules that were compiled before; None if the code of one is not there any more."""
        paths = [cache.place("cpu", key, SUFFIX) for key in keys]
        codes = [None if path is None else cache.read(path) for path in paths]
        present = [code for code in codes if code is not None]
        if len(present) < len(keys):
            return None
        library = cls.__new__(cls)
        library.keys, library.seconds = list(keys), 0.0
        with _lock:
            library._link(present, exported, imported)
        return library

    def _link(self, codes: Sequence[bytes], exported: Iterable[str], imported: dict[str, int]) -> None:
        import llvmlite.binding as llvm

        global _count
        builder = llvm.JITLibraryBuilder().add_current_process()
        for code in codes:
            builder.add_object_img(code)
        for name, address in imported.items():
            builder.import_symbol(name, address)
        names = list(exported)
        for name in names:
            builder.export_symbol(name)
        _count += 1
        self._tracker = builder.link(_jit(), f"graphtorch{_count}")
        self.addresses: dict[str, int] = {name: self._tracker[name] for name in names}


def assembly(texts: Iterable[str]) -> str:
    """The machine code of modules as assembly text; generated anew."""
    import llvmlite.binding as llvm

    with _lock:
        return "\n".join(str(_machine().emit_assembly(llvm.parse_assembly(text))) for text in texts)


def _key(text: str) -> str:
    """What a module's object code is kept under."""
    return hashlib.blake2b("\0".join((text, *surroundings())).encode(), digest_size=20).hexdigest()


def surroundings() -> tuple[str, ...]:
    """What object code depends on beside its text."""
    import llvmlite

    target = host()
    return target.triple, target.cpu, target.features, llvmlite.__version__, str(OPTIMIZATION)

"""`@compile`: capture on the first call, check guards and replay on later ones.

A compiled function keeps one specialisation for each set of assumptions that it met. A call looks for one whose guards
hold; if none does, the function is captured again, with the sizes that changed since the last time as symbols. Beyond
`recompile_limit` specialisations, calls run eagerly, with one warning."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from graphtorch.autograd.state import modes_entered, state
from graphtorch.frontend.arguments import guard_sharing, tensor_argument
from graphtorch.frontend.arithmetic import check_values
from graphtorch.frontend.collection import collection_paused
from graphtorch.frontend.decisions import Decision, Decisions
from graphtorch.frontend.descriptions import Constant
from graphtorch.frontend.effects import Raised, RunEagerly, classes_told, effect, effects_watched
from graphtorch.frontend.environment import Environment
from graphtorch.frontend.errors import CaptureError, PythonStateChange, TakeApart, refuse
from graphtorch.frontend.explain import Explanation, describe_specialization
from graphtorch.frontend.failures import EXPECTED, explained, is_repeatable
from graphtorch.frontend.guards import GuardSet, is_scalar
from graphtorch.frontend.logs import log_specialization
from graphtorch.frontend.modes import Modes
from graphtorch.frontend.names import labels_of, name_of, title_of
from graphtorch.frontend.paths import PathTree, run_path
from graphtorch.frontend.places import Place
from graphtorch.frontend.program import Captured, assemble, backward_knows_numbers, refuse_known_containers
from graphtorch.frontend.reach import tensor_names
from graphtorch.frontend.recorder import Recorder
from graphtorch.frontend.replay import MISS, Replay, write_replay
from graphtorch.frontend.scalars import ANY, FixedNumbers, changed_numbers, check_numbers, compute_alike, values_of
from graphtorch.frontend.sizes import NUMBER, FixedSizes, Sizes
from graphtorch.frontend.specialization import Specialization
from graphtorch.frontend.stance import DEFAULT, Stance
from graphtorch.frontend.stance import holder as stance
from graphtorch.frontend.tree import flatten, unflatten
from graphtorch.frontend.turns import OutOfTurn, turn
from graphtorch.frontend.varying import NumbersVary, TrackedPlaces, Varying, is_number
from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import default_backend, get_backend
from graphtorch.ops.dispatch import user_frame
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import UndecidedError
from graphtorch.tensor.tensor import Tensor

logger = logging.getLogger("graphtorch.compile")

RECOMPILE_LIMIT = 8
CHEAP_VARIANTS = 8  # that need no compilation of their own, for which one could be compiled
_PRODUCES = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class CompiledFunction:
    """A function under `@compile`. Calling it runs the specialisation that fits, compiling one if there is none."""

    instances: ClassVar[weakref.WeakSet[CompiledFunction]] = weakref.WeakSet()

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        backend: str | None = None,
        dynamic: bool | None = None,
        fullgraph: bool = False,
        recompile_limit: int | None = None,
        memory_budget: float = 1.0,
        on_recompile: str = "warn",
        check: bool | None = None,
        mode: str | None = None,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}")
        if on_recompile not in ("warn", "error"):
            raise ValueError(f'on_recompile must be "warn" or "error", got {on_recompile!r}')
        if not 0 <= memory_budget <= 1:
            raise ValueError(f"memory_budget must be between 0 and 1, got {memory_budget}")
        functools.update_wrapper(self, function)
        self._settings = {
            "backend": backend,
            "dynamic": dynamic,
            "fullgraph": fullgraph,
            "recompile_limit": recompile_limit,
            "memory_budget": memory_budget,
            "on_recompile": on_recompile,
            "check": check,
            "mode": mode,
        }
        self.function = function
        self._backend = backend
        self.mode = mode or "default"
        self.dynamic = dynamic
        self.fullgraph = fullgraph
        self.recompile_limit = RECOMPILE_LIMIT if recompile_limit is None else recompile_limit
        self.memory_budget = memory_budget
        self.on_recompile = on_recompile
        self.check = os.environ.get("GRAPHTORCH_CHECK", "") not in ("", "0") if check is None else check
        self.specializations: list[Specialization] = []
        self._replays: tuple[Replay, ...] = ()  # of specialisations that were used more than once
        self.eager_calls = 0
        self.eager_reason = ""
        self._raised: Exception | None = None  # what the function raised in a capture
        self._refusals = 0  # captures that ended in something that no graph can hold
        self._refusal = ""
        self._warned = False
        self._called = False
        self._apart, self._numbers = False, True  # if captures take `cond` apart; if they may follow arguments
        self._varying, self._tracks = Varying(), True  # numbers in Python objects; if captures may follow them
        self._tracked = False  # if the last capture did
        self._forced: dict[str, CompiledFunction] = {}  # the same for backends that a stance asks for
        CompiledFunction.instances.add(self)

    @property
    def backend(self) -> str:
        """The name of the backend; the default one is looked for when it is first needed."""
        if self._backend is None:
            self._backend = default_backend()
        return self._backend

    @backend.setter
    def backend(self, name: str) -> None:
        self._backend = name

    def _backend_for(self, captured: Captured) -> str:
        """The backend of one capture: what computes on a CUDA device runs there, in the mode that was asked for."""
        graph = captured.graph
        values = (*graph.inputs, *(r for node in graph.nodes for r in node.results))
        on_cuda = any(v.type.device.type == "cuda" for v in values)
        name = "triton" if on_cuda else self.backend
        return name if self.mode == "default" or ":" in name else f"{name}:{self.mode}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if state.recorder is not None:
            return self.function(*args, **kwargs)  # inside another capture: part of its graph
        if modes_entered and state.modes:
            return self.function(*args, **kwargs)  # a dispatch mode sees operators, of which a program has none
        if stance.current is not DEFAULT:
            decided = self._by_stance(stance.current, args, kwargs)
            if decided is not MISS:
                return decided
        try:
            for replay in self._replays:
                result = replay(args, kwargs)
                if result is not MISS:
                    return result
        except EXPECTED as error:
            return self._failed(error, args, kwargs)
        if state.anomaly:
            return self.function(*args, **kwargs)  # the tape names the line of a step that gives NaN
        if self.check:
            from graphtorch.frontend.check import checked_call

            return checked_call(self, args, kwargs)
        return self.find(args, kwargs)

    def _by_stance(self, now: Stance, args: Any, kwargs: Any) -> Any:
        """A call under another stance; MISS for one that goes on as usual."""
        if now.name == "force_eager" or (now.name == "eager_then_compile" and not self._called):
            self._called = True
            return self.function(*args, **kwargs)
        if now.backend is not None and now.backend != self.backend:
            forced = self._forced.get(now.backend)
            if forced is None:
                forced = _compiled(self.function, {**self._settings, "backend": now.backend, "check": False})
                self._forced[now.backend] = forced
            return forced(*args, **kwargs)
        return MISS

    def _fitting(self, tree: Any, leaves: list[Any]) -> Specialization | None:
        return next((s for s in self.specializations if s.matches(tree, leaves)), None)

    def _specialize_once(self, tree: Any, leaves: list[Any]) -> Specialization:
        """A new specialisation, or the one that another thread has made meanwhile."""
        with turn():
            return self._fitting(tree, leaves) or self.specialize(tree, leaves)

    def find_or_compile(self, tree: Any, leaves: list[Any]) -> Specialization | None:
        """The specialisation for a call; None for one that runs eagerly."""
        fitting = self._fitting(tree, leaves)
        if fitting is not None or self.eager_reason or self._variants() >= self.recompile_limit:
            return fitting
        try:
            return self._specialize_once(tree, leaves)
        except RunEagerly as why:
            if not isinstance(why, Raised | OutOfTurn):
                self._note(why)
            return None

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that no replay knows to fit: check the guards, and compile where none hold."""
        leaves: list[Any] = []
        tree = flatten((args, kwargs), leaves)
        for specialization in self.specializations:
            if specialization.matches(tree, leaves):
                if specialization.paths is not None:
                    return run_path(self, specialization, tree, leaves, args, kwargs)
                try:
                    result = specialization.run(leaves)
                except EXPECTED as error:
                    return self._failed(error, args, kwargs)
                if specialization.replay is None and not self.check:
                    self._add_replay(specialization, tree, leaves)
                return result
        if self.eager_reason:
            return self._run_eagerly(self.eager_reason, args, kwargs)
        if self._variants() >= self.recompile_limit:
            reason = (
                f"it has {len(self._programs())} specialisations, its recompile_limit; the last was compiled because "
                f"{self.specializations[-1].reason}; this call does not fit because {self._reason(tree, leaves)}"
                if self.specializations
                else self._refusal
            )
            if self.on_recompile == "error":
                raise refuse(
                    f"{self!r} would be compiled again: {reason}",
                    "pass what changes as a tensor, mark sizes with mark_dynamic, or raise recompile_limit",
                )
            return self._run_eagerly(reason, args, kwargs)
        try:
            specialization = self._specialize_once(tree, leaves)
        except RunEagerly as why:
            if not isinstance(why, Raised | OutOfTurn):
                self._note(why)
            return self.run_eagerly(why, args, kwargs)
        if specialization.paths is not None:
            return run_path(self, specialization, tree, leaves, args, kwargs)
        try:
            return specialization.run(leaves)
        except EXPECTED as error:
            return self._failed(error, args, kwargs)

    def _add_replay(self, specialization: Specialization, tree: Any, leaves: list[Any]) -> None:
        with suppress(OutOfTurn), turn(0.0):  # else a later call writes it
            if specialization.replay is None:
                specialization.replay = write_replay(specialization)
                specialization.matches(tree, leaves)  # so that the next call finds nothing changed
                self._replays += (specialization.replay,)

    def _failed(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose compiled code raised: the error as eager execution has it, or what the user's handler makes of
        it."""
        leaves: list[Any] = []
        tree = flatten((args, kwargs), leaves)
        specialization = self._fitting(tree, leaves)
        if specialization is None or getattr(error, "_graphtorch_located", False):
            raise error
        if not is_repeatable(specialization):
            raise explained(error, specialization, leaves) from None
        result = self.function(*args, **kwargs)
        self._warn(f"compiled code raised {type(error).__name__}: {error}")
        self.eager_calls += 1
        return result

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> Any:
        """By name where it has one (a decorated function), else as the function and how to compile it."""
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (_compiled, (self.function, self._settings))

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        function = copy.deepcopy(self.function, memo)
        return self if function is self.function else _compiled(function, self._settings)

    def __repr__(self) -> str:
        return f"<compiled {title_of(self.function)}>"

    def explain(self) -> Explanation:
        """What was captured and assumed, and what it became: one entry a specialisation."""
        return Explanation(
            title_of(self.function),
            tuple(describe_specialization(s, s.backend) for s in self.specializations),
            self.eager_calls,
        )

    def reset(self) -> None:
        """Forget all specialisations."""
        self.specializations.clear()
        self._forced.clear()
        self._replays = ()
        self.eager_reason = ""
        self._refusals, self._refusal = 0, ""
        self._warned = False
        self._apart, self._numbers = False, True
        self._varying, self._tracks = Varying(), True

    def run_eagerly(self, why: RunEagerly, args: Any, kwargs: Any) -> Any:
        """A call that could not be captured. Nobody needs to know of a first call that leaves something behind for
        the others."""
        if why.first:
            logger.info("%r runs its first call eagerly: %s", self, why)
            self.eager_calls += 1
            return self.function(*args, **kwargs)
        if isinstance(why, Raised):
            try:
                result = self.function(*args, **kwargs)
            except Exception as error:
                if error.__context__ is why:
                    error.__context__ = None  # it is the same error
                raise
            self._note(why)
            self.eager_calls += 1
            self._warn(str(why))
            return result
        return self._run_eagerly(str(why), args, kwargs)

    def _run_eagerly(self, reason: str, args: Any, kwargs: Any) -> Any:
        self.eager_calls += 1
        self._warn(reason)
        return self.function(*args, **kwargs)

    def _warn(self, reason: str) -> None:
        if not self._warned and stance.current.name != "eager_on_recompile":
            self._warned = True
            caller = user_frame()
            warnings.warn_explicit(
                f"{self!r} runs eagerly: {reason}",
                UserWarning,
                caller.f_code.co_filename,
                caller.f_lineno,
                caller.f_globals.get("__name__"),
                caller.f_globals.setdefault("__warningregistry__", {}),
            )

    # -- compilation -------------------------------------------------------------------------------------------------

    def specialize(
        self, tree: Any, leaves: list[Any], paths: PathTree | None = None, known: Sequence[Decision] = ()
    ) -> Specialization:
        """Capture and compile for these arguments: a new variant, or, with the `known` answers to its first decisions
        on tensor data, a further one of `paths`.

        Raises RunEagerly where that is impossible."""
        if stance.current.name == "eager_on_recompile":
            raise RunEagerly("the stance says so", once=True)
        if stance.current.name == "fail_on_recompile":
            raise RuntimeError(
                f"{self!r} would be compiled because {self._reason(tree, leaves)}, and set_stance("
                '"fail_on_recompile") is in effect'
            )
        if _PRODUCES[0](self.function) or _PRODUCES[1](self.function) or _PRODUCES[2](self.function):
            raise effect("is a generator or a coroutine, which runs on after the call,", self.fullgraph)
        start = time.perf_counter()
        reason = self._reason(tree, leaves) if paths is None else f"this time {known[-1]}"
        changed = self._changed_sizes(tree, leaves)
        paths = PathTree() if paths is None else paths
        for made in self.specializations:
            self._varying.compare(made.captured.assumed)
        failed: BaseException | None = None  # of a capture that followed numbers
        dropped = False  # whether one that followed arguments failed
        plain: Graph | None = None  # of one that did not
        try:
            with collection_paused():
                counts = self.dynamic is not False
                while True:
                    try:
                        made = self._capture(tree, leaves, changed, paths, known, counts, plain)
                        break
                    except TakeApart:
                        self._apart = True
                    except NumbersVary as found:
                        plain = found.graph
                        if not self._varying.add(found.places):
                            raise
                    except FixedSizes as fixed:
                        changed = {i: dims - fixed.dims.get(i, set()) for i, dims in changed.items()}
                        counts = counts and bool(fixed.dims)
                    except UndecidedError:
                        if any(NUMBER in dims for dims in changed.values()):
                            changed = {i: dims - {NUMBER} for i, dims in changed.items()}
                            continue
                        # Something in the program has no symbolic form: compile for these sizes alone.
                        if not counts and not changed:
                            raise
                        counts, changed = False, changed if counts else {}
                    except (Exception, RunEagerly) as error:
                        self._numbers |= dropped  # what is not due to numbers goes wrong again
                        sizes = {i: dims for i, dims in changed.items() if isinstance(leaves[i], Tensor)}
                        if len(sizes) < len(changed):
                            dropped, self._numbers = True, isinstance(error, FixedNumbers)
                        elif sizes and isinstance(error, Exception) and not isinstance(error, CaptureError):
                            counts, sizes = False, {}  # the user's error is to name the sizes
                        elif failed is not None:  # what is not due to numbers
                            self._tracks = not isinstance(error, PythonStateChange)
                            raise (error if self._tracks else failed) from None
                        elif self._tracked and not getattr(error, "first", False):
                            failed, self._tracks = error, False
                        else:
                            raise
                        changed = sizes
        except PythonStateChange as change:
            if self.fullgraph:
                raise
            raise RunEagerly(str(change)) from None
        except CaptureError as error:
            if self.fullgraph or not error.reason:
                raise
            raise RunEagerly(error.reason, once=True) from None
        except Exception as error:
            if error is not self._raised:
                raise
            raise Raised(error) from None
        finally:
            self._raised = None
        if made.paths is not None:
            paths.paths.append(made)
        made.reason = reason
        made.compile_seconds = time.perf_counter() - start
        self.specializations.append(made)
        logger.info("compiled %s in %.1f ms because %s", made.name, made.compile_seconds * 1e3, reason)
        log_specialization(made)
        return made

    def _variants(self) -> int:
        """How often calls of a new kind came: those that were compiled and those that no graph can hold."""
        count = len(self._programs())
        return count + (len(self.specializations) - count) // CHEAP_VARIANTS + self._refusals

    def _programs(self) -> set[int]:
        """The programs by id: specialisations that differ in decisions on tensor data have one, as have those that
        differ in what Python computes beside it."""
        return {id(s.paths or s.compiled) for s in self.specializations}

    def _note(self, why: RunEagerly) -> None:
        """Remember that a call, or every call, can't be compiled."""
        if stance.current.name == "eager_on_recompile":
            return
        # What a first call does (making caches, saying something, reading the clock) is often done once.
        if why.once or not (self._refusals or self.specializations):
            self._refusals += 1
            self._refusal = str(why)
        else:
            self.eager_reason = str(why)

    def capture(
        self,
        tree: Any,
        leaves: list[Any],
        changed: dict[int, set[int]],
        known: Sequence[Decision] = (),
        counts: bool = False,
    ) -> tuple[Captured, GuardSet, Sizes]:
        """Record one run of the function; nothing concrete changes."""
        name = name_of(self.function)
        recorder = Recorder(name)
        sizes = Sizes()
        on_cuda = any(isinstance(leaf, Tensor) and leaf._device.type == "cuda" for leaf in leaves)
        backend = get_backend("triton" if on_cuda else self.backend)
        recorder.composites = backend.composites
        recorder.exact, recorder.apart = not self.fullgraph, self._apart
        if not self.fullgraph:
            recorder.decisions = Decisions(leaves, known, sizes.count if counts else None)
        guards = recorder.guards
        given: list[Any] = []
        labels = labels_of(self.function, tree, len(leaves))
        for i, leaf in enumerate(leaves):
            expression = f"leaves[{i}]"
            if isinstance(leaf, Tensor):
                given.append(tensor_argument(recorder, sizes, leaf, i, labels[i], changed.get(i, set())))
                continue
            if i in changed and NUMBER in changed[i]:
                leaf = recorder.integer_argument(i, labels[i], sizes.integer(i, leaf))
            elif i in changed:
                leaf = recorder.number_argument(i, labels[i], leaf)
            elif is_scalar(leaf):
                guards.same_value(expression, leaf, labels[i])
            else:
                guards.same_object(expression, leaf, f"{labels[i]} was the same object")
            given.append(leaf)
        guard_sharing(guards, leaves)
        state_name = guards.name(state)
        guards.add(f"{state_name}.grad_enabled is {state.grad_enabled}", f"grad mode was {state.grad_enabled}")
        guards.add(f"{state_name}.anomaly is False", "no anomaly was looked for")
        guards.add(f"{state_name}.inference is {state.inference}", f"inference mode was {state.inference}")
        if state.autocast is None:
            guards.add(f"{state_name}.autocast is None", "autocast was off")
        else:
            key = state.autocast.key
            guards.add(
                f"{state_name}.autocast is not None and {state_name}.autocast.key == {guards.name(key)}",
                f"autocast was on, to {key[0]}",
            )
        default = guards.name(dtypes)
        guards.same_object(
            f"{default}.get_default_dtype()",
            dtypes.get_default_dtype(),
            f"the default dtype was {dtypes.get_default_dtype()!r}",
            f"{guards.name(vars(dtypes))}['_default_dtype']",
        )
        recorder.module_names, recorder.optimizers = tensor_names(self.function, leaves)
        for optimizer in recorder.optimizers:
            getattr(optimizer, "_prepare_for_capture", bool)()
        environment = recorder.environment = Environment(self.function, leaves, guards, self.fullgraph)
        places = TrackedPlaces(environment, self._varying if self._tracks else None, recorder)
        environment.met = places.install
        args, kwargs = unflatten(tree, iter(given))
        modes = Modes()
        changed_modes: list[str] = []
        try:
            places.install()
            watching = effects_watched(environment.renamed(), self.fullgraph)
            told = classes_told(environment.absent)
            with watching, told, environment.watch_reads(), recorder, environment.entered.noted(environment.meet):
                owner = getattr(self.function, "__self__", None)
                root = owner if hasattr(owner, "named_parameters") and not isinstance(owner, type) else None
                if root is not None:
                    recorder.enter_module(root)
                result = self.function(*args, **kwargs)
                if root is not None:
                    recorder.exit_module(root)
                places.collect()
                refuse_known_containers(result, (args, kwargs), environment)
                result_leaves: list[Any] = []
                result_tree = flatten(result, result_leaves)
                assigned = environment.find_assigned()
                captured = assemble(recorder, result_leaves, result_tree, assigned, places.changes)
            if recorder.refused is not None:
                raise recorder.refused
        except BaseException as error:
            self._tracked = recorder.arithmetic.reads and self._tracks
            recorder.arithmetic.active = False
            places.restore()
            environment.undo_changes()
            recorder.attributes_set()
            if isinstance(error, Exception) and not isinstance(error, CaptureError):
                recorder.assume_apart(GuardSet())  # otherwise the error may be one of the capture alone
                if recorder.gave_numbers and not self.fullgraph and not isinstance(error, UndecidedError):
                    raise Raised(error, "it gave code that takes no tensors the result of item()") from None
                self._raised = None if self.fullgraph else error
            if isinstance(error, CaptureError) and recorder.refused is not None:
                error.reason = recorder.refused.reason  # dispatch adds the operator, in an error of its own
            raise
        finally:
            changed_modes = modes.restore()
        side_effects = environment.undo_changes() + changed_modes + recorder.attributes_set()
        if environment.filled and not self.fullgraph:
            raise RunEagerly(f"it fills the cache of {environment.filled}", first=True)
        after: list[Any] = []
        if flatten((args, kwargs), after) != tree or any(a is not b for a, b in zip(after, given, strict=False)):
            side_effects.append("a container among the arguments")
        if side_effects or (environment.made and self.fullgraph):
            raise PythonStateChange(side_effects + [place.meaning for place in places.fresh] + environment.made)
        self._varying.add(places.fresh if environment.made else ())
        if not (self.specializations or self._refusals or self.fullgraph):  # what a first call sets is often set once
            environment.made += [place.meaning for place in places.flags]
        if environment.made:  # the next call will find it
            raise RunEagerly(f"it makes {', '.join(environment.made[:5])}", first=True)
        captured.names_type = "type" in environment.names
        if places.fresh:
            raise NumbersVary(places.fresh, captured.graph if captured.names_type else None)
        environment = environment.narrowed()
        if environment.made:
            raise PythonStateChange(environment.made)
        recorder.assume_hooks()
        recorder.assume_modes()
        recorder.assume_uncalled(environment.modules, environment.names)
        taken = {number[:2] for number in recorder.numbers}

        def is_read(place: Place) -> bool:
            known = id(place.namespace) in recorder.states and isinstance(place.value, Tensor)
            return known or place in places or (id(place.namespace), place.key) in taken

        environment.add_guards(is_read, recorder.states)
        captured.assumed = [p for p in environment.places if is_number(p) and not is_read(p)]
        places.add_guards(guards, recorder.assumed)
        check_values(recorder.arithmetic, [s.captured.arithmetic for s in self.specializations])
        captured.arithmetic = recorder.arithmetic
        self._tracked = recorder.arithmetic.reads and self._tracks
        return captured, guards, sizes

    def _capture(
        self,
        tree: Any,
        leaves: list[Any],
        changed: dict[int, set[int]],
        paths: PathTree,
        known: Sequence[Decision] = (),
        counts: bool = False,
        plain: Graph | None = None,
    ) -> Specialization:
        captured, guards, sizes = self.capture(tree, leaves, changed, known, counts)
        sizes.check()
        if self._tracked and plain is not None and not compute_alike(captured.graph, plain):
            raise RunEagerly("it asks for the class of a number that changes", once=True)
        if self._tracked and captured.differentiable and (captured.custom or captured.hooks):
            raise RunEagerly("Python code of a backward pass outside may know a number that changes", once=True)
        if captured.differentiable and backward_knows_numbers(captured):
            raise FixedNumbers
        numbers = values_of(leaves, changed)
        asked = [i for i, v in numbers.items() if v is ANY and not sizes.decided_by(i)]
        if any(captured.names_type or NUMBER in changed[i] for i in asked):
            check_numbers(captured, self.specializations, tree)
        name = name_of(self.function)
        backend_name, earlier = self._backend_for(captured), self.specializations
        made = Specialization(captured, guards, tree, backend_name, name, paths, self.memory_budget, earlier)
        if assumed := made.settings:
            held = guards.name(get_backend(made.backend))
            guards.add(f"{held}.settings() == {assumed!r}", f"the backend's settings were {assumed!r}")
        sizes.check()
        sizes.add_guards(guards)  # those of the compilation too: a formula or a pass may have asked about a size
        made.numbers = numbers
        made.shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else None for leaf in leaves]
        return made

    def _changed_sizes(self, tree: Any, leaves: Sequence[Any]) -> dict[int, set[int]]:
        """The dimensions to make symbolic: all, none, or those whose size differs from an earlier specialisation's.
        Numbers that are to be followed are keys, too; integers that are to be symbols have one `NUMBER`."""
        found: dict[int, set[int]] = {}
        if self.dynamic is False:
            return found
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                continue
            if self.dynamic is True:
                found[i] = set(range(leaf.ndim)) - {*leaf._static_dims}
                continue
            if leaf._dynamic_dims:
                found[i] = {*leaf._dynamic_dims}
            for earlier in self.specializations:
                if earlier.tree == tree and earlier.shapes[i] is not None:
                    shape = earlier.shapes[i]
                    assert shape is not None
                    if len(shape) == leaf.ndim:
                        differing = {d for d in range(leaf.ndim) if shape[d] != leaf.shape[d]}
                        found.setdefault(i, set()).update(differing - {*leaf._static_dims})
        numbers = changed_numbers(self.specializations, tree, leaves) if self._numbers else {}
        return {i: dims for i, dims in found.items() if dims} | numbers

    def _reason(self, tree: Any, leaves: Sequence[Any]) -> str:
        if not self.specializations:
            return "it is the first call"
        latest = self.specializations[-1]
        if latest.tree != tree:
            return "the structure of the arguments was another"
        failed = latest.guards.first_failure(leaves)
        if failed is None:
            return "the arguments changed"
        return f"it no longer holds that {failed}{self._sizes_that_changed(tree, latest, leaves)}"

    def _sizes_that_changed(self, tree: Any, latest: Specialization, leaves: Sequence[Any]) -> str:
        """` (x.shape[0] is 5, was 4)` for arguments of as many dimensions as before and other sizes."""
        found: list[str] = []
        labels = labels_of(self.function, tree, len(leaves))
        for label, leaf, before in zip(labels, leaves, latest.shapes, strict=True):
            if isinstance(leaf, Tensor) and before is not None and len(before) == leaf.ndim:
                pairs = enumerate(zip(leaf.shape, before, strict=True))
                found += [f"{label}.shape[{d}] is {now}, was {was}" for d, (now, was) in pairs if now != was]
        return f" ({'; '.join(found)})" if found else ""


def _compiled(function: Callable[..., Any], settings: dict[str, Any]) -> CompiledFunction:
    return CompiledFunction(function, **settings)


def set_recompile_limit(limit: int) -> None:
    """The limit of functions, compiled already or later, that name none."""
    global RECOMPILE_LIMIT
    RECOMPILE_LIMIT = limit
    for function in CompiledFunction.instances:
        if function._settings["recompile_limit"] is None:
            function.recompile_limit = limit


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | None = None,
    recompile_limit: int | None = None,
    memory_budget: float = 1.0,
    on_recompile: str = "warn",
    check: bool | None = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """Compile a function (or a module's forward) as one graph: forward, backward and parameter updates.

    Use as `@compile`, `@compile(...)` or `compile(f, ...)`. The first call captures the function; later calls replay it
    while the guards hold, and a call that fails them compiles a further specialisation (see `.explain()`).

    fullgraph         raise for a function that one graph can't express: one that changes Python state other than
                      numbers (a list that grows), prints, or decides on tensor data. Otherwise such a function runs
                      eagerly, with one warning, or, for decisions, becomes one program for each way that it takes.
    dynamic           None: a size that changes becomes symbolic; True: all sizes are symbolic at once; False: never.
    backend           "cpu" (native code), "numpy" (fused kernels in NumPy) or "interpreter" (operator by operator).
                      None, or PyTorch's default name "inductor": GRAPHTORCH_BACKEND, else "cpu" where this machine can
                      run it, else "numpy".
    recompile_limit   after so many specialisations (None: 8), calls that fit none run eagerly, with one warning.
    on_recompile      "warn", or "error": raise instead, saying what differed.
    check             run each call eagerly too, and raise at the first operation that differs, with its line. None: as
                      GRAPHTORCH_CHECK says. For finding mistakes: every call costs as much as both.
    mode              what is worth some effort on a CUDA device: "reduce-overhead" replays CUDA graphs, which costs
                      memory that stays allocated; "max-autotune" also measures which form of a kernel is fastest. On
                      the CPU all modes are the same.
    options           PyTorch's settings of its compiler, which change nothing here; unknown ones are refused.
    disable           return the function as it is.
    memory_budget     from 0 to 1: how much of what a backward pass outside needs is kept for it. At 1, only what costs
                      nothing is computed again instead; at 0, everything but random numbers.

    Raises CaptureError at the user's line for what no graph can express.
    See https://docs.pytorch.org/docs/stable/generated/torch.compile.html."""
    settings: dict[str, Any] = {
        "fullgraph": fullgraph,
        "dynamic": dynamic,
        "backend": None if backend == "inductor" else backend,
        "recompile_limit": recompile_limit,
        "memory_budget": memory_budget,
        "on_recompile": on_recompile,
        "check": check,
        "mode": mode,
    }
    if options:
        from graphtorch.compiler.settings import inductor_names

        known = inductor_names()
        unknown = next((name for name in options if name.replace("-", "_") not in known), None)
        if unknown is not None:
            raise RuntimeError(f"Unexpected optimization option {unknown}, known options are {known}")
    if disable and model is not None:
        return model
    if model is None and disable:
        return lambda function: function
    if model is None:
        return lambda function: compile(function, **settings)
    if not callable(model):
        raise TypeError(f"compile() expects a function or a module, not {type(model).__name__}")
    if hasattr(model, "_compiled_call_impl"):
        model._compiled_call_impl = CompiledFunction(model._call_impl, **settings)
        return model
    return CompiledFunction(model, **settings)


__all__ = ["CompiledFunction", "Constant", "Specialization", "compile"]

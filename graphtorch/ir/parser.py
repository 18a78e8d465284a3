"""Reading graphs from text: the inverse of `printer.print_graph`. docs/ir.md has the grammar.

Written by hand it may leave out what can be inferred: a node without types has its arguments normalised and its types
inferred by the operator. Comments that are not a node's provenance are skipped.
"""

from __future__ import annotations

import json
import math
import re
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from graphtorch.ir.graph import UNKNOWN, Graph, Location, Node, Value
from graphtorch.ir.region import Region
from graphtorch.ops.record import MISSING, Operator, lookup
from graphtorch.tensor.devices import CPU, canonical
from graphtorch.tensor.dtypes import BY_ABBREVIATION
from graphtorch.tensor.size_text import bounded
from graphtorch.tensor.symint import SymbolScope, SymInt, sym_max, sym_min
from graphtorch.tensor.type import TensorType


class ParseError(ValueError):
    """Text that is no graph. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int, source: str) -> None:
        marker = " " * (column - 1) + "^"
        super().__init__(f"line {line}, column {column}: {message}\n  {source}\n  {marker}")
        self.line = line
        self.column = column


class Token(NamedTuple):
    kind: str  # value, string, number, name, device, symbol, end
    text: str
    position: int


MAX_OPERATIONS = 100_000  # on sizes, in one text
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<comment>\#[^\n]*)
    |(?P<value>%(?:[A-Za-z0-9_.]+|{_STRING}))
    |(?P<string>{_STRING})
    |(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|0x[0-9a-f]+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<device>@\w+(?::\d+)?)
    |(?P<symbol>\.\.\.|//|\*\*|>=|[()\[\]{{}},:=+\-*%~<>.])
    """,
    re.VERBOSE,
)
_HEXADECIMAL = re.compile(r"0x[0-9a-f]+")
_PROVENANCE = re.compile(
    rf"""\#\s*
    (?:(?P<file>{_STRING}|[\w./\\~+<>-]+):(?P<line>\d+)(?=\s|$)\s*)?
    (?:in\s(?P<module>{_STRING}|[\w.\[\]-]+)\s*)?
    (?:(?P<text>{_STRING})\s*)?
    (?:from\s(?P<origin>{_STRING})\s*)?$
    """,
    re.VERBOSE,
)
_LABEL = re.compile(rf"\s*(?:({_STRING})|([A-Za-z0-9_.]+(?: [A-Za-z0-9_.]+)*))\s*=")


def parse_graph(text: str) -> Graph:
    """The graph that the text describes. Raises ParseError (a ValueError) with line, column and the offending line."""
    return _Parser(text).graph()


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.comments: dict[int, str] = {}  # by line number
        self.tokens: list[Token] = []
        self.at = 0
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", source))]
        self._outermost: dict[str, Value] = {}
        self.values = self._outermost
        self.scope = SymbolScope()
        self.operations = 0
        self._tokenise()

    def _tokenise(self) -> None:
        position = 0
        while position < len(self.source):
            match = _HEXADECIMAL.match(self.source, position) or _TOKEN.match(self.source, position)
            if match is None:
                self.fail(f"unexpected {self.source[position]!r}", position)
            kind = match.lastgroup or "number"
            if kind == "comment":
                self.comments[self._line(position)] = match.group()
            elif kind != "space":
                self.tokens.append(Token(kind, match.group(), position))
            position = match.end()
        self.tokens.append(Token("end", "the end of the text", len(self.source)))

    # -- errors and tokens -----------------------------------------------------------------------------------------

    def _line(self, position: int) -> int:
        return bisect_right(self.line_starts, position)

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        place = self.tokens[self.at].position if position is None else position
        start = self.source.rfind("\n", 0, place) + 1
        end = self.source.find("\n", place)
        line = self.source[start : end if end >= 0 else len(self.source)]
        raise ParseError(message, self._line(place), place - start + 1, line) from None

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Step over a symbol or word if it is next."""
        if self.token.text == text and self.token.kind in ("symbol", "name"):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> Token:
        if not self.accept(text):
            self.fail(f"expected '{text}', found {self._shown()}")
        return self.tokens[self.at - 1]

    def expect_kind(self, kind: str, what: str) -> Token:
        if self.token.kind != kind:
            self.fail(f"expected {what}, found {self._shown()}")
        return self.take()

    def _shown(self) -> str:
        return self.token.text if self.token.kind == "end" else f"'{self.token.text}'"

    def items(self, close: str, item: Callable[[], None]) -> None:
        """Comma-separated items up to a closing bracket; a trailing comma is allowed."""
        while not self.accept(close):
            item()
            if not self.accept(","):
                self.expect(close)
                return

    def word(self, what: str) -> str:
        if self.token.kind == "string":
            return self.string(self.take())
        return self.expect_kind("name", what).text

    def string(self, token: Token) -> str:
        return self._unquoted(token.text, token.position)

    def _unquoted(self, text: str, position: int) -> str:
        try:
            found: str = json.loads(text, strict=False)
        except ValueError:
            self.fail("malformed string", position)
        return found

    # -- graph -----------------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        found = self._graph()
        if self.token.kind != "end":
            self.fail(f"expected the end of the text, found {self._shown()}")
        return found

    def _region(self) -> Region:
        """A graph among the arguments of a node. It sees no values of the graph around it, but the same symbols."""
        outer, self.values = self.values, {}
        try:
            return Region(self._graph())
        finally:
            self.values = outer

    def _graph(self) -> Graph:
        self.expect("graph")
        graph = Graph(self.word("the graph's name"))
        if self.accept("["):
            self.items("]", self._declare_symbol)
        self.expect("(")
        self.items(")", lambda: self._input(graph))
        self.expect("{")
        while self.token.kind == "value":
            self._node(graph)
        self._outputs(graph)
        self.expect("}")
        return graph

    def _declare_symbol(self) -> None:
        token = self.expect_kind("name", "a symbol")
        self.expect(">=")
        lower = self._integer()
        hint = self._integer() if self.accept("~") else None
        if token.text in self.scope.symbols and self.values is not self._outermost:
            return
        try:
            self.scope.symbol(hint, lower, token.text)
        except ValueError as error:
            self.fail(str(error), token.position)

    def _integer(self) -> int:
        negative = self.accept("-")
        token = self.expect_kind("number", "an integer")
        if not token.text.isdigit():
            self.fail("expected an integer", token.position)
        return -int(token.text) if negative else int(token.text)

    def _input(self, graph: Graph) -> None:
        token = self.expect_kind("value", "an input such as %x")
        self.expect(":")
        found = self.type()
        # `number` is the type's mark if a kind follows it, and the kind otherwise.
        kind = self.word("the input's kind")
        if kind == "number" and self.token.kind in ("name", "string"):
            found = TensorType(found.dtype, found.shape, found.device, True)
            kind = self.word("the input's kind")
        value = Value(found)
        self._define(token, value)
        graph.inputs.append(value)
        graph.input_kinds.append(kind)

    def _name(self, token: Token) -> str:
        text = token.text[1:]
        return self._unquoted(text, token.position) if text.startswith('"') else text

    def _define(self, token: Token, value: Value) -> None:
        name = self._name(token)
        if name in self.values:
            self.fail(f"{token.text} is defined twice", token.position)
        value.name = name
        self.values[name] = value

    def _use(self, token: Token) -> Value:
        value = self.values.get(self._name(token))
        if value is None:
            self.fail(f"{token.text} is not defined before this line", token.position)
        return value

    def type(self) -> TensorType:
        token = self.expect_kind("name", "a type such as f32[2, 3]")
        if token.text not in BY_ABBREVIATION:
            self.fail(f"'{token.text}' is not a dtype; expected one of {', '.join(BY_ABBREVIATION)}", token.position)
        shape: list[Any] = []

        def dimension() -> None:
            position = self.token.position
            size = self.constant()
            if type(size) is not int and type(size) is not SymInt:
                self.fail("expected a size", position)
            shape.append(size)

        self.expect("[")
        self.items("]", dimension)
        where = self._device() if self.token.kind == "device" else CPU
        return TensorType(BY_ABBREVIATION[token.text], tuple(shape), where)

    def _device(self) -> Any:
        token = self.take()
        try:
            return canonical(token.text[1:])
        except RuntimeError as error:
            self.fail(str(error), token.position)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _node(self, graph: Graph) -> None:
        targets = [self.take()]
        while self.accept(","):
            targets.append(self.expect_kind("value", "a result such as %0"))
        types: list[TensorType] | None = None
        if self.accept(":"):
            types = [self._result_type()]
            while self.accept(","):
                types.append(self._result_type())
        self.expect("=")
        token = self.expect_kind("name", "an operator")
        try:
            op = lookup(token.text)
        except KeyError as error:
            self.fail(error.args[0], token.position)
        self.expect("(")
        args = self._arguments(op, token)
        location, origin = self._provenance(self._line(self.tokens[self.at - 1].position))
        if types is None:
            try:
                args = op.normalize(*args) if op.normalize is not None else args
                types = list(op.infer(args))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                self.fail(f"{op.name}: {error}", token.position)
        if len(targets) != len(types):
            self.fail(f"{len(targets)} results with {len(types)} types", targets[0].position)
        node = Node(op, args, types, location, origin)
        for target, value in zip(targets, node.results, strict=True):
            self._define(target, value)
        graph.nodes.append(node)

    def _result_type(self) -> TensorType:
        found = self.type()
        return TensorType(found.dtype, found.shape, found.device, True) if self.accept("number") else found

    def _arguments(self, op: Operator, name: Token) -> tuple[Any, ...]:
        given: dict[str, Any] = {}

        def argument() -> None:
            token = self.token
            following = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
            if token.kind == "name" and following.text == "=" and following.kind == "symbol":
                self.at += 2
                parameter = token.text
                if all(p.name != parameter for p in op.parameters):
                    self.fail(f"{op.name} has no parameter '{parameter}'", token.position)
            else:
                if len(given) >= len(op.parameters) or op.parameters[len(given)].keyword_only:
                    self.fail(f"too many positional arguments for {op.signature()}")
                parameter = op.parameters[len(given)].name
            if parameter in given:
                self.fail(f"argument '{parameter}' is given twice", token.position)
            given[parameter] = self.constant()

        self.items(")", argument)
        for p in op.parameters:
            if p.name not in given:
                if p.default is MISSING:
                    self.fail(f"{op.name} needs an argument '{p.name}'", name.position)
                given[p.name] = p.default
        return tuple(given[p.name] for p in op.parameters)

    def _provenance(self, line: int) -> tuple[Location, str]:
        match = _PROVENANCE.match(self.comments.get(line, ""))
        if match is None:
            return UNKNOWN, ""
        found = {name: part or "" for name, part in match.groupdict().items()}
        for name, part in found.items():
            if part.startswith('"'):
                found[name] = json.loads(part, strict=False)
        location = Location(found["file"], int(found["line"] or 0), found["text"], found["module"])
        return (UNKNOWN if location == UNKNOWN else location), found["origin"]

    def _outputs(self, graph: Graph) -> None:
        self.expect("return")
        wrapped = self.accept("(")
        while self.token.text not in (")", "}") and self.token.kind != "end":
            # Names of outputs may have spaces: they are read from the text and not from tokens.
            match = _LABEL.match(self.source, self.token.position)
            if match is None:
                self.fail(f"expected an output such as loss=%0, found {self._shown()}")
            quoted, bare = match.groups()
            name = self._unquoted(quoted, self.token.position) if quoted else bare
            while self.token.position < match.end():
                self.take()
            graph.outputs.append(self._use(self.expect_kind("value", "a value such as %0")))
            graph.output_names.append(name)
            if not self.accept(","):
                break
        if wrapped:
            self.expect(")")

    # -- constants and sizes ---------------------------------------------------------------------------------------

    def constant(self) -> Any:
        """A constant, a value or an expression over sizes: sums of products of signed powers."""
        left = self._product()
        while self.token.kind == "symbol" and self.token.text in "+-":
            left = self._apply(self.take(), left, self._product())
        return left

    def _product(self) -> Any:
        left = self._signed()
        while self.token.kind == "symbol" and self.token.text in ("*", "//", "%"):
            left = self._apply(self.take(), left, self._signed())
        return left

    def _signed(self) -> Any:
        if self.accept("-"):
            position = self.tokens[self.at - 1].position
            operand = self._signed()
            if isinstance(operand, bool) or not isinstance(operand, int | float | SymInt):
                self.fail("only a number has a negative", position)
            return -operand
        left = self._primary()
        if self.accept("**"):
            left = self._apply(self.tokens[self.at - 1], left, self._primary())
        return left

    def _apply(self, operator: Token, left: Any, right: Any) -> Any:
        for operand in (left, right):
            if type(operand) is not int and type(operand) is not SymInt:
                self.fail(f"'{operator.text}' is for sizes", operator.position)
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            self.fail(f"more than {MAX_OPERATIONS} operations on sizes", operator.position)
        try:
            return bounded(operator.text, left, right)
        except ValueError as error:
            self.fail(str(error), operator.position)

    def _primary(self) -> Any:
        token = self.take()
        if token.kind == "value":
            return self._use(token)
        if token.kind == "number":
            return int(token.text, 0) if _is_integer(token.text) else float(token.text)
        if token.kind == "string":
            return self.string(token)
        if token.kind == "device":
            self.at -= 1
            return self._device()
        if token.kind == "name":
            return self._named(token)
        if token.text == "(":
            return self._parenthesised()
        if token.text == "[":
            found: list[Any] = []
            self.items("]", lambda: found.append(self.constant()))
            return found
        if token.text == "{":
            return self._dictionary()
        if token.text == "...":
            return ...
        if token.text == "<":
            self.fail("an opaque constant, which text can't represent", token.position)
        self.at -= token.kind != "end"
        self.fail(f"expected a constant, a value or a size, found {self._shown()}")

    def _named(self, token: Token) -> Any:
        name = token.text
        if name == "graph" and self.token.kind in ("name", "string"):
            self.at -= 1
            return self._region()
        if name in self.scope.symbols:
            return self.scope.symbols[name]
        if name in _WORDS and not (name == "nan" and self.token.text == "("):
            return _WORDS[name]
        if name in BY_ABBREVIATION:
            return BY_ABBREVIATION[name]
        if name in _CALLS and self.accept("("):
            parts: list[Any] = []
            self.items(")", lambda: parts.append(self.constant()))
            count, make = _CALLS[name]
            if len(parts) != count:
                self.fail(f"{name} takes {count} arguments, not {len(parts)}", token.position)
            try:
                return make(*parts)
            except (TypeError, ValueError, struct.error) as error:
                self.fail(f"{name}: {error}", token.position)
        self.fail(f"unknown name '{name}'", token.position)

    def _parenthesised(self) -> Any:
        """A tuple, or an expression in parentheses: as in Python, the comma makes the tuple."""
        found: list[Any] = []
        comma = False
        while not self.accept(")"):
            found.append(self.constant())
            if not self.accept(","):
                self.expect(")")
                break
            comma = True
        return found[0] if len(found) == 1 and not comma else tuple(found)

    def _dictionary(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}

        def entry() -> None:
            key = self.constant()
            self.expect(":")
            found[key] = self.constant()

        self.items("}", entry)
        return found


def _is_integer(text: str) -> bool:
    return text.isdigit() or text.startswith("0x")


def read_nan(text: str) -> float:
    """`nan`, or `nan(0x...)` with its bits, as `printer.print_float` writes it."""
    return _nan(int(text[4:-1], 0)) if text != "nan" else float(_WORDS["nan"])


def _nan(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    if not math.isnan(value):
        raise ValueError("not the bits of a NaN")
    return value


_WORDS: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "inf": math.inf,
    "nan": struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000))[0],
}
_CALLS: dict[str, tuple[int, Callable[..., Any]]] = {
    "max": (2, sym_max),
    "min": (2, sym_min),
    "complex": (2, complex),
    "slice": (3, slice),
    "nan": (1, _nan),
}

"""Streams and events: what runs in order, and how other streams and the host wait for it.

See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from graphtorch.runtime.cuda import devices, graphs
from graphtorch.tensor.devices import device as device_class


def index_of(where: Any) -> int | None:
    """The number of a device given as a number, a name, a device object or None (the current one)."""
    if where is None or (isinstance(where, int) and where >= 0):
        return where
    if isinstance(where, int):
        return None
    found = where if isinstance(where, device_class) else device_class(where)
    if found.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {found}")
    return found.index


class Stream:
    """A queue of work of one device, in order. See torch.cuda.Stream.

    `with stream:` sends this thread's work there.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _raw: Any = None, **kwargs: Any) -> None:
        self._device = devices.device(index_of(device))
        driver = self._device.driver
        self._raw = driver.create_stream(self._device.index, priority) if _raw is None else _raw
        self.priority = priority
        self._outer: list[tuple[int, Any, Any]] = []

    @property
    def device(self) -> device_class:
        return self._device.place

    @property
    def device_index(self) -> int:
        return self._device.index

    @property
    def cuda_stream(self) -> int:
        """The number that other libraries know the stream by."""
        return self._device.driver.stream_handle(self._raw)

    def query(self) -> bool:
        """Whether all that was sent has run."""
        graphs.refuse(self._raw)
        return self._device.driver.stream_done(self._raw)

    def synchronize(self) -> None:
        """Wait until all that was sent has run."""
        graphs.refuse(self._raw)
        self._device.driver.wait_stream(self._raw)

    def wait_event(self, event: Event) -> None:
        """Let what is sent from now on wait for an event."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """Let what is sent from now on wait for all that another stream was sent so far."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """An event at this place of the queue."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        index = self._device.index
        self._outer.append((devices.current.index, index, devices.current.streams.get(index)))
        set_stream(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        selected, index, before = self._outer.pop()
        devices.current.index = selected
        if before is None:
            devices.current.streams.pop(index, None)
        else:
            devices.current.streams[index] = before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self._raw is other._raw and self._device is other._device

    def __hash__(self) -> int:
        return hash((self.cuda_stream, self._device.index))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream that another library made. See torch.cuda.ExternalStream."""

    def __init__(self, stream_ptr: int, device: Any = None) -> None:
        where = devices.device(index_of(device))
        super().__init__(where.index, _raw=where.driver.external_stream(where.index, stream_ptr))


class Event:
    """A mark in a stream. See torch.cuda.Event."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise RuntimeError("Event: events shared between processes are not supported")
        self._timing = enable_timing
        self._blocking = blocking
        self._device: devices.Device | None = None
        self._raw: Any = None

    def record(self, stream: Stream | None = None) -> None:
        """Put the mark at this place of a stream, by default the current one.

        Raises RuntimeError for another device's stream than at first.
        """
        stream = current_stream() if stream is None else stream
        if self._device is None:
            self._device = stream._device
            self._raw = self._device.driver.create_event(self._device.index, self._timing, self._blocking)
        elif self._device is not stream._device:
            raise RuntimeError(
                f"Event device {self._device.index} does not match recording stream's device {stream.device_index}."
            )
        self._device.driver.record_event(self._raw, stream._raw)

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream, by default the current one, wait for the mark."""
        stream = current_stream() if stream is None else stream
        if self._device is not None:
            self._device.driver.stream_wait_event(stream._raw, self._raw)

    def query(self) -> bool:
        """Whether the mark was passed; also true for one that was never put anywhere."""
        graphs.refuse()
        return self._device is None or self._device.driver.event_done(self._raw)

    def synchronize(self) -> None:
        """Wait until the mark is passed."""
        graphs.refuse()
        if self._device is not None:
            self._device.driver.wait_event(self._raw)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this mark to another. Both must have been made with `enable_timing` and be passed.

        Raises ValueError for events without timing or never recorded, RuntimeError for one that is not passed yet.
        """
        if not (self._timing and end_event._timing):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._device is None or end_event._device is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self.query() and end_event.query()):
            raise RuntimeError(
                "Both events must be completed before calculating elapsed time. This can be done by calling "
                "synchronize() on both events."
            )
        return self._device.driver.elapsed(self._raw, end_event._raw)

    def __repr__(self) -> str:
        return f"<torch.cuda.Event {id(self._raw):#x}>" if self._raw is not None else "<torch.cuda.Event uninitialized>"


def current_stream(device: Any = None) -> Stream:
    """The stream that this thread's work goes to. See torch.cuda.current_stream."""
    where = devices.device(index_of(device))
    return Stream(where.index, _raw=devices.stream_of(where))


def default_stream(device: Any = None) -> Stream:
    """The stream that work goes to unless told otherwise. See torch.cuda.default_stream."""
    where = devices.device(index_of(device))
    return Stream(where.index, _raw=where.stream)


def set_stream(stream: Stream | None) -> None:
    """Send this thread's work to a stream, and select its device. See torch.cuda.set_stream."""
    if stream is not None:
        devices.select(stream._device.index)
        devices.current.streams[stream._device.index] = stream._raw


class StreamContext:
    """`with torch.cuda.stream(s):`; None changes nothing. See torch.cuda.StreamContext."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self.stream.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stream is not None:
            self.stream.__exit__(kind, error, trace)

"""`torch.cuda` with devices, and without: there it says what PyTorch's build for the CPU says."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch
import graphtorch as torch
from graphtorch.runtime.cuda import driver as drivers
from graphtorch.runtime.cuda.simulated import SimulatedDriver


@pytest.fixture
def no_devices(monkeypatch: pytest.MonkeyPatch) -> Any:
    def absent() -> Any:
        raise drivers.CudaUnavailable("there is none")

    monkeypatch.setattr(drivers, "find_driver", absent)


NO_ARGUMENTS = (
    *("is_available", "device_count", "is_initialized", "init", "current_device", "get_device_name"),
    *("get_device_properties", "get_device_capability", "synchronize", "memory_allocated", "max_memory_allocated"),
    *("memory_reserved", "max_memory_reserved", "memory_stats", "empty_cache", "mem_get_info", "current_stream"),
    *("default_stream", "seed", "seed_all", "initial_seed", "get_rng_state", "get_rng_state_all", "ipc_collect"),
    *("is_bf16_supported", "get_arch_list", "get_gencode_flags", "memory_stats_as_nested_dict", "is_tf32_supported"),
)


def outcome(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("name", NO_ARGUMENTS)
def test_without_a_device_as_pytorch(name: str, no_devices: Any) -> None:
    theirs = pytest.importorskip("torch")
    if theirs.cuda.is_available():
        pytest.skip("PyTorch has a device")
    if name == "is_initialized" and graphtorch.cuda.is_initialized():
        pytest.skip("another test has used a simulated device")
    wanted = outcome(getattr(theirs.cuda, name))
    found = outcome(getattr(graphtorch.cuda, name))
    assert found == wanted


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.zeros(2, device="cuda"),
        lambda t: t.zeros(2).cuda(),
        lambda t: t.ones(2).to("cuda"),
        lambda t: t.tensor(2, device="cuda:0"),
        lambda t: t.rand(2, device="cuda"),
        lambda t: t.arange(3, device="cuda"),
        lambda t: t.nn.Linear(2, 2, device="cuda"),
        lambda t: t.nn.Linear(2, 2).cuda(),
        lambda t: t.ones(2).pin_memory(),
        lambda t: t.cuda.device(0).__enter__(),
        lambda t: t.cuda.set_device(-1),
        lambda t: t.cuda.device(-1).__enter__(),
        lambda t: t.cuda.device_of(t.ones(2)).__enter__(),
        lambda t: t.cuda.stream(None).__enter__(),
        lambda t: t.cuda.manual_seed(3),
        lambda t: t.cuda.manual_seed_all(3),
        lambda t: t.ones(2).is_pinned(),
        lambda t: t.cuda.can_device_access_peer(1, 0),
        lambda t: t.cuda.set_per_process_memory_fraction(0.5),
    ],
)
def test_programs_that_want_a_device_fail_as_in_pytorch(make: Any, no_devices: Any) -> None:
    theirs = pytest.importorskip("torch")
    if theirs.cuda.is_available():
        pytest.skip("PyTorch has a device")
    assert outcome(make, graphtorch) == outcome(make, theirs)


def test_why_there_is_no_device(no_devices: Any) -> None:
    assert torch.cuda.why_unavailable() == "there is none"
    with pytest.raises(RuntimeError, match="Cannot get CUDA generator"):
        torch.Generator(device="cuda")


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    find = drivers.find_driver.__wrapped__
    monkeypatch.setenv("GRAPHTORCH_CUDA", "none")
    with pytest.raises(drivers.CudaUnavailable, match="GRAPHTORCH_CUDA says so"):
        find()
    monkeypatch.setenv("GRAPHTORCH_CUDA", "simulated:3")
    assert find().device_count() == 3
    monkeypatch.setenv("GRAPHTORCH_CUDA", "imagined")
    with pytest.raises(ValueError, match="GRAPHTORCH_CUDA must be"):
        find()


def test_devices(cuda: SimulatedDriver) -> None:
    assert torch.cuda.is_available() and torch.cuda.device_count() == 2
    assert torch.cuda.get_device_capability() == (9, 0) and "simulated" in torch.cuda.get_device_name("cuda:1")
    assert torch.cuda.current_device() == 0
    torch.cuda.set_device("cuda:1")
    try:
        assert torch.cuda.current_device() == 1 and torch.ones(1, device="cuda").device.index == 1
    finally:
        torch.cuda.set_device(0)
    torch.cuda.synchronize()
    assert torch.cuda.is_initialized() and torch.cuda.can_device_access_peer(0, 1)
    assert torch.cuda.is_bf16_supported() and torch.cuda.get_arch_list() == ["sm_90", "sm_90"]
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        torch.cuda.get_device_name("cpu")


def test_memory_figures(cuda: SimulatedDriver) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    x = torch.empty(1 << 20, device="cuda")
    y = torch.empty(100, device="cuda")
    assert torch.cuda.memory_allocated() == before + (4 << 20) + 512
    assert torch.cuda.memory_reserved() >= torch.cuda.memory_allocated()
    stats = torch.cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == torch.cuda.memory_allocated()
    assert stats["allocation.all.current"] >= 2 and stats["num_ooms"] >= 0
    nested = torch.cuda.memory_stats_as_nested_dict()
    assert nested["allocated_bytes"]["all"]["peak"] == torch.cuda.max_memory_allocated()
    del x
    assert (
        torch.cuda.memory_allocated() == before + 512 and torch.cuda.max_memory_allocated() == before + (4 << 20) + 512
    )
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == before + 512
    assert torch.cuda.memory_allocated(1) == torch.cuda.memory_allocated("cuda:1")
    assert any(s["segment_type"] == "large" for s in torch.cuda.memory_snapshot())
    reserved = torch.cuda.memory_reserved()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < reserved
    text = torch.cuda.memory_summary()
    assert "PyTorch CUDA memory summary, device ID 0" in text and len({len(line) for line in text.splitlines()}) == 1
    assert y.numel() == 100


def test_memory_that_comes_back_is_used_again(cuda: SimulatedDriver) -> None:
    x = torch.empty(3000, device="cuda")
    address = x.data_ptr()
    del x
    assert torch.empty(3000, device="cuda").data_ptr() == address
    pieces = [torch.empty(1 << 16, device="cuda") for _ in range(8)]  # a segment of 2 MiB, or parts of two
    low, reserved = min(p.data_ptr() for p in pieces), torch.cuda.memory_reserved()
    del pieces
    whole = [torch.empty(1 << 18, device="cuda") for _ in range(1)]  # neighbours became one block
    assert torch.cuda.memory_reserved() == reserved and whole[0].data_ptr() >= low


def test_another_streams_use_keeps_memory(cuda: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = torch.cuda.Stream()
    x = torch.empty(5000, device="cuda")
    address = x.data_ptr()
    x.record_stream(stream)
    monkeypatch.setattr(cuda, "event_done", lambda event: False)
    del x
    other = torch.empty(5000, device="cuda")
    assert other.data_ptr() != address
    monkeypatch.undo()
    again = [torch.empty(5000, device="cuda") for _ in range(2)]
    assert address in [t.data_ptr() for t in again]
    with torch.cuda.stream(stream):
        assert torch.empty(5000, device="cuda").data_ptr() != address  # memory of one stream is not another's
    with pytest.raises(RuntimeError, match="record_stream"):
        torch.ones(1).record_stream(stream)


def test_out_of_memory(cuda: SimulatedDriver) -> None:
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)
    message = (
        r"CUDA out of memory\. Tried to allocate 37\.25 GiB\. GPU 0 has a total capacity of 8\.00 GiB of which .* is "
        r"free\. Process \d+ has .* memory in use\. Of the allocated memory .* is allocated by PyTorch, and .* is "
        r"reserved by PyTorch but unallocated\. If reserved but unallocated memory is large try setting "
        r"PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation\.  See documentation for Memory "
        r"Management"
    )
    before = torch.cuda.memory_allocated()
    with pytest.raises(torch.cuda.OutOfMemoryError, match=message):
        torch.empty(10**10, device="cuda")
    assert torch.cuda.memory_allocated() == before and torch.ones(2, device="cuda").sum().item() == 2
    with pytest.raises(torch.cuda.OutOfMemoryError):
        torch.ones(1 << 20, device="cuda").expand(1 << 14, 1 << 20) + 1
    torch.cuda.set_per_process_memory_fraction(0.25)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError, match=r"2\.00 GiB allowed"):
            torch.empty(3 << 30, dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    with pytest.raises(ValueError, match="Invalid fraction value"):
        torch.cuda.set_per_process_memory_fraction(2.0)


def test_cached_memory_is_given_up_before_the_device_is_full(cuda: SimulatedDriver) -> None:
    half = torch.empty(5 << 30, dtype=torch.uint8, device="cuda")
    del half
    assert torch.empty(6 << 30, dtype=torch.uint8, device="cuda").numel() == 6 << 30
    torch.cuda.empty_cache()


def test_streams_and_events(cuda: SimulatedDriver) -> None:
    stream, other = torch.cuda.Stream(), torch.cuda.Stream(device="cuda:1", priority=-1)
    assert stream != torch.cuda.default_stream() and other.device == torch.device("cuda:1")
    with torch.cuda.stream(other):
        assert torch.cuda.current_device() == 1 and torch.cuda.current_stream() == other
        assert torch.ones(2, device="cuda").device.index == 1
    assert torch.cuda.current_device() == 0 and torch.cuda.current_stream() == torch.cuda.default_stream()
    with stream:
        x = torch.ones(3, device="cuda") * 2
    torch.cuda.current_stream().wait_stream(stream)
    assert x.tolist() == [2, 2, 2] and stream.query()
    stream.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    assert "uninitialized" in repr(start) and start.query()
    start.record()
    end.record()
    end.synchronize()
    assert 0 <= start.elapsed_time(end) < 1000
    with pytest.raises(ValueError, match="enable_timing=True"):
        torch.cuda.Event().elapsed_time(end)
    with pytest.raises(ValueError, match="must be recorded"):
        torch.cuda.Event(enable_timing=True).elapsed_time(end)
    with pytest.raises(RuntimeError, match="does not match recording stream's device"):
        start.record(other)
    outside = torch.cuda.ExternalStream(0x1234)
    assert outside.cuda_stream == 0x1234 and hash(outside) == hash(torch.cuda.ExternalStream(0x1234))


def test_generators(cuda: SimulatedDriver) -> None:
    torch.manual_seed(7)
    assert torch.cuda.initial_seed() == 7
    torch.cuda.manual_seed_all(8)
    assert [torch.cuda.get_rng_state(i).view(torch.int64).tolist() for i in range(2)] == [[8, 0], [8, 0]]
    states = torch.cuda.get_rng_state_all()
    a = torch.rand(3, device="cuda:1").tolist()
    torch.cuda.set_rng_state_all(states)
    assert torch.rand(3, device="cuda:1").tolist() == a
    torch.cuda.seed_all()
    assert torch.cuda.initial_seed() != 8
    generator = torch.Generator(device="cuda")
    generator.manual_seed(3)
    copied = generator.clone_state()
    assert (
        torch.rand(2, device="cuda", generator=generator).tolist()
        == torch.rand(2, device="cuda", generator=copied).tolist()
    )
    with pytest.raises(RuntimeError, match="RNG state is wrong size"):
        generator.set_state(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="multiple of 4"):
        generator.set_offset(3)


def test_the_accelerator_is_cuda(cuda: SimulatedDriver) -> None:
    accelerator = torch.accelerator
    assert accelerator.is_available() and accelerator.device_count() == 2
    assert accelerator.current_accelerator() == torch.device("cuda") and accelerator.current_device_index() == 0
    accelerator.set_device_index(1)
    try:
        assert torch.cuda.current_device() == 1
    finally:
        accelerator.set_device_index(0)
    accelerator.synchronize()
    assert accelerator.memory_allocated() == torch.cuda.memory_allocated() and torch.backends.cuda.is_built()
    assert torch.OutOfMemoryError is torch.cuda.OutOfMemoryError


def test_without_a_device_there_is_no_accelerator(no_devices: Any) -> None:
    assert not torch.accelerator.is_available() and torch.accelerator.current_accelerator() is None
    with pytest.raises(RuntimeError, match="Cannot access accelerator device when none is available"):
        torch.accelerator.synchronize()


def test_generators_of_another_device_are_refused(cuda: SimulatedDriver) -> None:
    """As in PyTorch, eagerly and compiled; what shuffles data draws where its generator is."""
    host, there = torch.Generator(), torch.Generator(device="cuda")
    draws: list[Callable[[Any, Any], Any]] = [
        lambda place, g: torch.rand(3, device=place, generator=g),
        lambda place, g: torch.randperm(4, device=place, generator=g),
        lambda place, g: torch.zeros(3, device=place).uniform_(generator=g),
        lambda place, g: torch.bernoulli(torch.full((3,), 0.5, device=place), generator=g),
        lambda place, g: torch.multinomial(torch.ones(4, device=place), 2, generator=g),
        lambda place, g: torch.randn(3, device=place, generator=g),
    ]
    for draw in draws:
        for place, generator, own in (("cuda", host, "cpu"), ("cpu", there, "cuda")):
            with pytest.raises(RuntimeError, match=f"Expected a '{place}' device type for generator but found '{own}'"):
                draw(place, generator)
            assert draw(own, generator).device.type == own
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
        torch.compile(lambda x: x + torch.rand(3, device="cuda", generator=host))(torch.zeros(3, device="cuda"))

    def shuffled() -> list[Any]:
        from graphtorch.utils.data import DataLoader, RandomSampler, TensorDataset, random_split

        data = TensorDataset(torch.arange(9, device="cpu"))
        batches = [x.tolist() for (x,) in DataLoader(data, 4, True, generator=torch.Generator().manual_seed(1))]
        parts = random_split(data, [4, 5], torch.Generator().manual_seed(2))
        several = RandomSampler(data, True, 40, torch.Generator().manual_seed(3))
        return [batches, [part.indices for part in parts], list(several)]

    wanted = shuffled()
    torch.set_default_device("cuda")
    try:
        assert shuffled() == wanted
    finally:
        torch.set_default_device("cpu")


@pytest.mark.usefixtures("cuda")
def test_forked_generators() -> None:
    def draw() -> Any:
        return torch.rand(3, device="cuda").tolist()

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert draw() == first
    with torch.random.fork_rng():
        assert draw() == second
        torch.manual_seed(99)
        assert draw() not in (first, second)
    assert draw() == second
    torch.manual_seed(3)
    with torch.random.fork_rng(devices=[]):  # of the CPU only
        assert draw() == first
    assert draw() == second
    for devices in ([0], ["cuda:0"], [torch.device("cuda", 0)]):
        torch.manual_seed(3)
        with torch.random.fork_rng(devices=devices):
            assert (draw(), draw()) == (first, second)
        assert draw() == first
    with torch.random.fork_rng(enabled=False):
        assert draw() == second
    torch.manual_seed(3)
    with torch.random.fork_rng():
        other = torch.rand(3, device="cuda:1").tolist()  # perhaps the first draw there
    assert torch.rand(3, device="cuda:1").tolist() == other == first
    mask = torch.compile(lambda x: torch.nn.functional.dropout(x, 0.5), mode="reduce-overhead")
    x = torch.ones(64, device="cuda")
    mask(x)
    torch.manual_seed(5)
    with torch.random.fork_rng():
        seen = mask(x).tolist()
    assert mask(x).tolist() == seen
    assert mask(x).tolist() != seen


@pytest.mark.usefixtures("cuda")
def test_a_checkpointed_dropout_is_computed_again_with_its_mask() -> None:
    x = torch.ones(64, device="cuda", requires_grad=True)
    torch.rand(3, device="cuda")
    y = torch.utils.checkpoint.checkpoint(lambda x: torch.nn.functional.dropout(x * x, 0.5), x, use_reentrant=False)
    following = torch.cuda.get_rng_state()
    y.sum().backward()
    assert torch.equal(torch.cuda.get_rng_state(), following)
    assert torch.equal(x.grad, 2 * y)


@pytest.mark.usefixtures("cuda")
def test_numbers_beside_parameters_of_distributions() -> None:
    made = torch.distributions.Normal(torch.zeros(3, device="cuda"), 2.0)
    assert made.scale.is_cuda and made.log_prob(torch.zeros(3, device="cuda")).is_cuda


def test_legacy_types_of_devices(cuda: Any) -> None:
    made = torch.cuda.FloatTensor([1.0, 2.0])
    assert made.is_cuda and made.tolist() == [1, 2]
    assert isinstance(made, torch.cuda.FloatTensor)
    assert not isinstance(made, torch.FloatTensor | torch.cuda.DoubleTensor)
    assert made.type() == "torch.cuda.FloatTensor"
    for moved in (made.type(torch.LongTensor), made.type("torch.LongTensor")):
        assert moved.type() == "torch.LongTensor"
    for there in (moved.type(torch.cuda.HalfTensor), moved.type("torch.cuda.HalfTensor")):
        assert there.type() == "torch.cuda.HalfTensor"
    assert made.type(torch.float64).is_cuda

"""Watching objects for changes: every change is seen, nothing else is, and what changes always is left out."""

import copy

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.frontend.watch import Settled, Watch, available
from graphtorch.tensor.storage import Writer

pytestmark = pytest.mark.skipif(not available(), reason="this interpreter has no versions of dictionaries")


class Thing:
    def __init__(self):
        self.a, self.b = 1, 2


def stored(thing, value):
    for _ in range(100):
        thing.a = value


CHANGES = {
    "attribute": lambda t, d: stored(t, 5),
    "new attribute": lambda t, d: setattr(t, "c", 1),
    "deleted attribute": lambda t, d: delattr(t, "b"),
    "another dictionary": lambda t, d: setattr(t, "__dict__", dict(vars(t))),
    "vars": lambda t, d: vars(t).update(a=7),
    "another class": lambda t, d: setattr(t, "__class__", type("Other", (type(t),), {"__slots__": ()})),
    "entry": lambda t, d: d.__setitem__("x", 3),
    "new entry": lambda t, d: d.setdefault("y", 1),
    "deleted entry": lambda t, d: d.pop("x"),
    "cleared": lambda t, d: d.clear(),
    "there and back": lambda t, d: (stored(t, 5), stored(t, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [Thing, type("Slotted", (Thing,), {"__slots__": ("z",)}), nn.Identity])
def test_changes_are_seen(change, kind):
    thing, held = kind(), {"x": 1}
    thing.a, thing.b = 1, 2
    watch = Watch()
    facts = [watch.attributes(thing), watch.entries(held)]
    before = watch.look(facts)
    assert watch.look(facts).words == before.words
    assert (thing.a, held.get("x"), [*held], hasattr(thing, "nothing")) == (1, 1, ["x"], False)
    assert watch.look(facts).words == before.words
    CHANGES[change](thing, held)
    after = watch.look(facts)
    assert (after.words, after.places.tolist()) != (before.words, before.places.tolist())


def test_what_cannot_be_watched():
    watch = Watch()
    assert watch.attributes(3) is None
    assert watch.attributes(object()) is None
    assert watch.entries([1]) is None
    assert watch.entries(None) is None


def settled(thing):
    watch, scope = Watch(), {"thing": thing}
    made = Settled(watch, scope, [("thing.a == 1", (watch.attributes(thing),))])
    made.install(made.look())
    return made, scope


def test_guards_are_evaluated_where_something_changed():
    thing = Thing()
    made, scope = settled(thing)
    seen = scope["seen"]
    thing.b = 5
    assert made.refresh()
    assert scope["seen"] != seen
    seen = scope["seen"]
    thing.a = 2
    assert not made.refresh()
    assert scope["seen"] == seen
    del thing.a
    assert not made.refresh()


def test_what_always_changes_is_left_out():
    thing = Thing()
    made, scope = settled(thing)
    for i in range(10):
        thing.b = i
        assert made.refresh()
    assert scope["rest"]()
    assert scope["seen"] == b""
    thing.a = 2
    assert not scope["rest"]()


class Owner:
    pass


def test_versions_of_storages_that_a_step_writes():
    x = torch.zeros(3)
    x.add_(1)
    owner = Owner()
    writer = Writer(owner)
    writer.count = 7
    storage = x.untyped_storage()
    writer.writes_to(storage)
    assert x._version == 1
    assert type(storage).__name__ == "UntypedStorage"
    assert isinstance(storage, torch.UntypedStorage)
    writer.count += 2
    assert (x._version, x.view(-1)._version) == (3, 3)
    x.add_(1)
    assert x._version == 4
    writer.writes_to(storage, 2)
    writer.count += 1
    assert x._version == 6
    del owner
    other = Owner()
    another = Writer(other)
    another.writes_to(storage)
    assert storage.writers == (another,)
    writer.count += 1
    another.count += 1
    assert x._version == 7
    assert copy.deepcopy(storage).version == 0


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_replay_counts_as_a_change(backend):
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @torch.compile(backend=backend)
    def step(x):
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    x = torch.ones(2, 4)
    for _ in range(3):
        step(x)
    versions = [p._version for p in model.parameters()]
    step(x)
    assert [p._version for p in model.parameters()] == [v + 1 for v in versions]
    y = (model.weight * model.weight).sum()
    step(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    model.weight.data = torch.ones(4, 4)  # other memory, which the next calls change
    for _ in range(3):
        before = model.weight._version
        step(x)
        assert model.weight._version == before + 1


def test_a_module_that_counts_its_calls_outside():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    forward = torch.compile(model, fullgraph=True, recompile_limit=3)
    x = torch.ones(2, 4)
    model.eval()
    wanted = model(x)
    for i in range(12):
        model[0].calls = i
        assert torch.equal(forward(x), wanted)
    model[0].out_features = 5
    assert torch.equal(forward(x), wanted)
    model.train()
    assert any(not torch.equal(forward(x), wanted) for _ in range(8))


def test_gradients_and_flags_of_parameters():
    weight = torch.ones(3, requires_grad=True)

    @torch.compile
    def run(x):
        return weight * x

    x = torch.ones(3)
    for _ in range(4):
        assert run(x).requires_grad
    weight.requires_grad_(False)
    assert not run(x).requires_grad
    weight.requires_grad_()
    assert run(x).requires_grad

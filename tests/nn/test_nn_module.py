"""nn.Module: registration, walking, state dicts, hooks, printing. Needs no PyTorch."""

import copy
import pickle
import warnings
from collections import OrderedDict

import pytest

import graphtorch as gt
from graphtorch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)
        self.register_buffer("scale", gt.ones(2))
        self.register_buffer("scratch", gt.zeros(2), persistent=False)

    def forward(self, x):
        return self.second(self.first(x).relu()) * self.scale


def test_names_and_order_of_members():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "first.weight",
        "first.bias",
        "second.weight",
        "second.bias",
    ]
    assert [name for name, _ in net.named_buffers()] == ["scale", "scratch"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "second"]
    assert [name for name, _ in net.named_children()] == ["first", "second"]
    assert list(net.state_dict()) == ["scale", "first.weight", "first.bias", "second.weight", "second.bias"]
    assert [name for name, _ in net.named_parameters(recurse=False)] == []
    assert next(net.named_parameters(prefix="net"))[0] == "net.first.weight"


def test_shared_members_appear_once():
    net = Net()
    net.third = net.first
    assert len(list(net.parameters())) == 4
    assert len(list(net.named_parameters(remove_duplicate=False))) == 6
    assert [name for name, _ in net.named_modules()] == ["", "first", "second"]
    assert [name for name, _ in net.named_modules(remove_duplicate=False)] == ["", "first", "second", "third"]


def test_assignment_moves_a_name_between_registries():
    net = nn.Module()
    net.x = 3
    net.x = nn.Parameter(gt.ones(2))
    assert "x" in net._parameters and "x" not in net.__dict__
    net.x = None
    assert net.x is None and "x" in net._parameters
    del net.x
    assert not hasattr(net, "x")
    net.y = nn.Linear(1, 1)
    net.y = nn.Parameter(gt.ones(1))
    assert "y" not in net._modules
    net.z = nn.Buffer(gt.ones(1), persistent=False)
    assert "z" in net._buffers and "z" not in net.state_dict()
    net.z = gt.zeros(1)
    assert "z" in net._buffers


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda m: setattr(m.first, "weight", gt.ones(2)), TypeError, "as parameter 'weight'"),
        (lambda m: setattr(m, "first", 3), TypeError, "cannot assign 'int' as child module 'first'"),
        (lambda m: setattr(m, "scale", 3), TypeError, "cannot assign 'int' as buffer 'scale'"),
        (lambda m: m.register_parameter("a.b", None), KeyError, 'parameter name can\'t contain "."'),
        (lambda m: m.register_parameter("", None), KeyError, "can't be empty string"),
        (lambda m: m.register_parameter("scale", None), KeyError, "attribute 'scale' already exists"),
        (lambda m: m.register_parameter(3, None), TypeError, "parameter name should be a string. Got int"),
        (lambda m: m.register_parameter("p", gt.ones(1)), TypeError, "torch.nn.Parameter or None required"),
        (lambda m: m.register_buffer("b", 3), TypeError, "cannot assign 'int' object to buffer 'b'"),
        (lambda m: m.add_module("m", 3), TypeError, "int is not a Module subclass"),
        (lambda m: m.add_module("a.b", nn.ReLU()), KeyError, "module name can't contain"),
        (lambda m: m.get_submodule("first.nothing"), AttributeError, "Linear has no attribute `nothing`"),
        (lambda m: m.get_parameter("scale"), AttributeError, "`scale` is not an nn.Parameter"),
        (lambda m: m.get_buffer("first.weight"), AttributeError, "`weight` is not a buffer"),
        (lambda m: m.nothing, AttributeError, "'Net' object has no attribute 'nothing'"),
        (lambda m: m.train("yes"), ValueError, "training mode is expected to be boolean"),
        (lambda m: m.to(gt.int64), TypeError, "only accepts floating point or complex dtypes"),
        (lambda m: nn.Module()(1), NotImplementedError, 'missing the required "forward" function'),
        (lambda m: nn.Module(1), TypeError, "takes 1 positional argument but 2 were given"),
        (lambda m: nn.Module(a=1), TypeError, "unexpected keyword argument 'a'"),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error) as caught:
        action(Net())
    assert message in caught.value.args[0]


def test_assignment_before_init():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="cannot assign module before"):
        Early()


def test_non_leaf_parameter_is_refused():
    net = nn.Module()
    doubled = nn.Parameter(gt.ones(2)) * 2
    fake = nn.Parameter(gt.ones(2))
    net.register_parameter("ok", fake)
    with pytest.raises(TypeError):
        net.register_parameter("bad", doubled)


def test_state_dict_round_trip():
    source, target = Net(), Net()
    target.scratch.fill_(5)
    result = target.load_state_dict(source.state_dict())
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert str(result) == "<All keys matched successfully>"
    for (_, a), (_, b) in zip(source.named_parameters(), target.named_parameters(), strict=True):
        assert gt.equal(a, b) and a is not b
    assert target.scratch.tolist() == [5, 5]
    assert source.state_dict()._metadata[""] == {"version": 1}
    assert not source.state_dict()["first.weight"].requires_grad
    assert source.state_dict(keep_vars=True)["first.weight"] is source.first.weight


def test_load_state_dict_reports_everything_at_once():
    net = Net()
    state = net.state_dict()
    state["first.weight"] = gt.ones(5, 5)
    state["first.bias"] = "no tensor"
    del state["second.bias"]
    state["other"] = gt.ones(1)
    before = net.second.weight.clone()
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Net:\n"
        '\tMissing key(s) in state_dict: "second.bias". \n'
        '\tUnexpected key(s) in state_dict: "other". \n'
        "\tsize mismatch for first.weight: copying a param with shape torch.Size([5, 5]) from checkpoint, the shape in "
        "current model is torch.Size([4, 3]).\n"
        '\tWhile copying the parameter named "first.bias", expected torch.Tensor or Tensor-like object from checkpoint '
        "but received <class 'str'>"
    )
    assert gt.equal(net.second.weight, before)
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        net.load_state_dict(3)


def test_load_state_dict_not_strict_and_assign():
    net = Net()
    result = net.load_state_dict({"scale": gt.zeros(2), "other": gt.zeros(1)}, strict=False)
    assert result.unexpected_keys == ["other"] and "first.weight" in result.missing_keys
    assert net.scale.tolist() == [0, 0]
    weight = gt.ones(4, 3)
    net.load_state_dict({"first.weight": weight}, strict=False, assign=True)
    assert isinstance(net.first.weight, nn.Parameter) and net.first.weight.requires_grad
    assert net.first.weight.data_ptr() == weight.data_ptr()


def test_extra_state():
    class WithExtra(nn.Module):
        def __init__(self, count=0):
            super().__init__()
            self.count = count

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    source, target = nn.Sequential(WithExtra(3)), nn.Sequential(WithExtra())
    assert list(source.state_dict()) == ["0._extra_state"]
    target.load_state_dict(source.state_dict())
    assert target[0].count == 3
    with pytest.raises(RuntimeError, match=r"Missing key.s. in state_dict: .0._extra_state"):
        target.load_state_dict({})


def test_train_eval_and_requires_grad():
    net = Net()
    assert net.training and net.first.training
    assert net.eval() is net and not net.first.training
    net.train()
    assert net.second.training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_zero_grad():
    net = Net()
    net(gt.ones(1, 3)).sum().backward()
    grad = net.second.bias.grad
    net.zero_grad(set_to_none=False)
    assert net.second.bias.grad is grad and grad.tolist() == [0, 0]
    net.zero_grad()
    assert net.second.bias.grad is None


def test_conversion_keeps_parameter_objects():
    net = Net()
    net(gt.ones(1, 3)).sum().backward()
    weight, count = net.first.weight, gt.tensor(3)
    net.register_buffer("count", count)
    assert net.double() is net
    assert net.first.weight is weight and weight.dtype is gt.float64
    assert weight.grad.dtype is gt.float64 and net.scale.dtype is gt.float64
    assert net.count.dtype is gt.int64
    net.to(gt.float32)
    assert weight.dtype is gt.float32
    net.to(gt.ones(1, dtype=gt.float64))
    assert weight.dtype is gt.float64
    net.to("cpu", gt.float16)
    assert weight.dtype is gt.float16
    assert net.bfloat16().first.bias.dtype is gt.bfloat16
    assert net.float().first.bias.dtype is gt.float32
    net(gt.ones(1, 3)).sum().backward()


def test_apply_and_paths():
    net = Net()
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "Net"]
    assert net.get_submodule("first") is net.first and net.get_submodule("") is net
    assert net.get_parameter("first.weight") is net.first.weight
    net.set_submodule("first", nn.Identity())
    assert isinstance(net.first, nn.Identity)
    assert "first" in dir(net) and "scale" in dir(net)


def test_deepcopy_and_pickle():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert isinstance(twin.first.weight, nn.Parameter)
        assert gt.equal(twin.first.weight, net.first.weight) and twin.first.weight is not net.first.weight
        assert "scratch" not in twin.state_dict()
        twin.first.weight.data.fill_(0)
        assert not gt.equal(twin.first.weight, net.first.weight)


def test_forward_hooks():
    net = nn.Linear(2, 2)
    calls = []

    def before(module, args):
        calls.append(("before", len(args)))
        return args[0] + 1

    def after(module, args, output):
        calls.append(("after", args[0].tolist()))
        return output * 0

    handles = [net.register_forward_pre_hook(before), net.register_forward_hook(after)]
    assert net(gt.zeros(2)).tolist() == [0, 0]
    assert calls == [("before", 1), ("after", [1, 1])]
    for handle in handles:
        handle.remove()
    net(gt.zeros(2))
    assert len(calls) == 2


def test_hooks_with_kwargs_order_and_always_call():
    class Takes(nn.Module):
        def forward(self, x, factor=1):
            if factor == 0:
                raise ValueError("zero")
            return x * factor

    net, order = Takes(), []
    net.register_forward_pre_hook(lambda m, a, k: (a, {"factor": k["factor"] + 1}), with_kwargs=True)
    net.register_forward_hook(lambda m, a, o: order.append("second"))
    net.register_forward_hook(lambda m, a, o: order.append("first"), prepend=True)
    net.register_forward_hook(lambda m, a, k, o: order.append(k), with_kwargs=True, always_call=True)
    assert net(gt.ones(1), factor=2).item() == 3
    assert order == ["first", "second", {"factor": 3}]
    with pytest.raises(ValueError, match="zero"):
        net(gt.ones(1), factor=-1)
    assert order[3:] == [{"factor": 0}]
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple"):
        net.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
        net(gt.ones(1), factor=1)


def test_full_backward_hooks():
    net = nn.Linear(3, 2)
    seen = {}

    def hook(module, grad_input, grad_output):
        seen["in"], seen["out"] = grad_input, grad_output
        return (grad_input[0] * 10,)

    handle = net.register_full_backward_hook(hook)
    x = gt.ones(4, 3, requires_grad=True)
    net(x).sum().backward()
    assert seen["out"][0].tolist() == [[1, 1]] * 4
    expected = net.weight.detach().sum(0)
    assert gt.allclose(seen["in"][0], expected.expand(4, 3))
    assert gt.allclose(x.grad, 10 * expected.expand(4, 3))
    handle.remove()
    net.register_full_backward_pre_hook(lambda m, grad_output: (grad_output[0] * 0,))
    net.zero_grad()
    net(x).sum().backward()
    assert net.weight.grad.abs().sum().item() == 0


def test_full_backward_hook_without_input_gradient():
    net, seen = nn.Linear(3, 2), []
    net.register_full_backward_hook(lambda m, i, o: seen.append((i, o[0].tolist())))
    net(gt.ones(1, 3)).sum().backward()
    assert seen == [((None,), [[1, 1]])]


def test_sequential_edits():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3))
    assert len(net[:2]) == 2 and isinstance(net[-1], nn.Linear)
    net.append(nn.Tanh()).insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in net] == ["Linear", "Sigmoid", "ReLU", "Linear", "Tanh"]
    del net[1]
    assert list(net._modules) == ["0", "1", "2", "3"]
    net[1] = nn.Identity()
    assert isinstance(net.pop(1), nn.Identity) and len(net) == 3
    assert len(net + net) == 6 and len(net * 2) == 6
    named = nn.Sequential(OrderedDict(a=nn.Linear(1, 2), b=nn.ReLU()))
    assert list(named.state_dict()) == ["a.weight", "a.bias"] and named.a is named[0]
    with pytest.raises(IndexError, match="index 7 is out of range"):
        net[7]


def test_module_list_and_dict():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers.extend([nn.ReLU()])
    layers += [nn.Tanh()]
    layers.insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in layers] == ["Linear", "Sigmoid", "ReLU", "Tanh"]
    assert list(layers.state_dict()) == ["0.weight", "0.bias"]
    assert isinstance(layers[1:], nn.ModuleList) and len(layers[1:]) == 3
    with pytest.raises(TypeError, match="should be called with an iterable, but got int"):
        layers.extend(5)
    table = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()})
    table["c"] = nn.Tanh()
    assert list(table) == ["a", "b", "c"] and "b" in table
    assert isinstance(table.pop("c"), nn.Tanh) and len(table) == 2


def test_parameter_containers():
    values = nn.ParameterList([gt.ones(2), nn.Parameter(gt.zeros(1)), 5])
    assert [name for name, _ in values.named_parameters()] == ["0", "1"]
    assert isinstance(values[0], nn.Parameter) and values[2] == 5 and len(values) == 3
    values.append(gt.ones(1))
    assert len(list(values.parameters())) == 3
    table = nn.ParameterDict({"a": gt.ones(2)})
    assert isinstance(table["a"], nn.Parameter) and list(table.state_dict()) == ["a"]
    with pytest.raises(TypeError, match="it is not a string"):
        nn.ParameterDict({1: gt.ones(1)})


def test_state_dict_hooks():
    net = Net()
    net.register_state_dict_post_hook(lambda m, d, p, meta: d.update(extra=gt.ones(1)))
    assert "extra" in net.state_dict()
    other = Net()
    other.register_load_state_dict_pre_hook(lambda m, d, *rest: d.pop("extra", None))
    other.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    state = net.state_dict()
    del state["scale"]
    other.load_state_dict(state)


def test_positional_state_dict_arguments_warn():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(nn.Linear(1, 1).state_dict(OrderedDict(), "p.")) == ["p.weight", "p.bias"]
    assert caught[0].category is FutureWarning

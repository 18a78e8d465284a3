"""autograd.Function: contexts, several results, in-place, non-differentiable results, double backward, gradcheck."""

import torch
from torch.autograd import Function, gradcheck, gradgradcheck

torch.manual_seed(0)


class Exp(Function):
    @staticmethod
    def forward(ctx, i):
        result = i.exp()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx, grad_output):
        (result,) = ctx.saved_tensors
        return grad_output * result


class LinearFunction(Function):
    @staticmethod
    def forward(input, weight, bias):
        output = input.mm(weight.t())
        if bias is not None:
            output += bias.unsqueeze(0).expand_as(output)
        return output

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, bias = inputs
        ctx.save_for_backward(input, weight, bias)

    @staticmethod
    def backward(ctx, grad_output):
        input, weight, bias = ctx.saved_tensors
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = grad_output.mm(weight)
        if ctx.needs_input_grad[1]:
            grad_weight = grad_output.t().mm(input)
        if bias is not None and ctx.needs_input_grad[2]:
            grad_bias = grad_output.sum(0)
        return grad_input, grad_weight, grad_bias


class MulConstant(Function):
    @staticmethod
    def forward(ctx, tensor, constant):
        ctx.set_materialize_grads(False)
        ctx.constant = constant
        return tensor * constant

    @staticmethod
    def backward(ctx, grad_output):
        if grad_output is None:
            return None, None
        return grad_output * ctx.constant, None


class MyCube(Function):
    @staticmethod
    def forward(x):
        return x**3, 3 * x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        (x,) = inputs
        result, dx = output
        ctx.save_for_backward(x, dx)

    @staticmethod
    def backward(ctx, grad_output, grad_dx):
        x, dx = ctx.saved_tensors
        return grad_output * dx + grad_dx * 6 * x


class Sorted(Function):
    @staticmethod
    def forward(ctx, x):
        y, idx = x.sort()
        ctx.mark_non_differentiable(idx)
        ctx.save_for_backward(idx)
        return y, idx

    @staticmethod
    def backward(ctx, g1, g2):
        (idx,) = ctx.saved_tensors
        out = torch.zeros_like(g1)
        out.index_add_(0, idx, g1)
        return out


class Inplace(Function):
    @staticmethod
    def forward(ctx, x):
        x_npy = x.numpy()
        x_npy += 1
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output


x = torch.randn(3, requires_grad=True)
y = Exp.apply(x)
print(y)
y.sum().backward()
print(torch.allclose(x.grad, x.exp()))
inputs = (
    torch.randn(4, 3, dtype=torch.double, requires_grad=True),
    torch.randn(2, 3, dtype=torch.double, requires_grad=True),
)
print(
    gradcheck(LinearFunction.apply, (*inputs, None)),
    gradcheck(Exp.apply, (inputs[0],)),
    gradgradcheck(Exp.apply, (inputs[0],)),
)
print(LinearFunction.apply(*inputs, None).grad_fn.name(), MulConstant.apply(x, 5.5))
c = torch.tensor(2.0, requires_grad=True)
cube, d = MyCube.apply(c)
print(cube, d)
(cube + d).backward()
print(c.grad)
s, idx = Sorted.apply(x)
print(s.requires_grad, idx.requires_grad, idx)
s[0].backward()
print(x.grad.shape)
a = torch.zeros(2, requires_grad=True) * 1
b = Inplace.apply(a)
print(b is a, b)


class Bad(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g, g


try:
    Bad.apply(x).sum().backward()
except RuntimeError as error:
    print(error)


class NoBackward(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2


try:
    NoBackward.apply(x).sum().backward()
except NotImplementedError as error:
    print(type(error).__name__)
try:
    gradcheck(lambda t: MulConstant.apply(t.detach(), 2.0) + t * t, (inputs[0],))
    print("agrees")
except Exception as error:
    print(type(error).__name__)
with torch.autograd.detect_anomaly(check_nan=True):
    z = torch.tensor([0.0, 1.0], requires_grad=True)
    try:
        (z.sqrt() * 0).sum().backward()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
with torch.autograd.graph.saved_tensors_hooks(lambda t: (t.dtype, t.half()), lambda p: p[1].to(p[0])):
    q = torch.tensor([1.0, 2.0], requires_grad=True)
    out = q * q
out.sum().backward()
print(q.grad)

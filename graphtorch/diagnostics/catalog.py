"""The catalogue of errors: number, what it looks like, cause, fix, and an example that raises it.

An error is recognised by its message, which is PyTorch's where PyTorch has the error too. `docs/errors` has a page an
entry, written by tools/make_error_pages.py; the tests run every example. Numbers are never reused. 1 to 39 are mistakes
with tensors, 40 to 59 what a capture refuses, 60 and up tools and files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of error.

    pattern   a regular expression that the start of its message matches
    example   a script whose last statement raises it
    fixed     the same without the mistake
    """

    code: str
    title: str
    pattern: str
    cause: str
    fix: str
    example: str
    fixed: str


def _entry(number: int, title: str, pattern: str, cause: str, fix: str, example: str, fixed: str) -> Entry:
    return Entry(f"GT{number:03}", title, pattern, cause, fix, example.strip("\n"), fixed.strip("\n"))


ENTRIES: tuple[Entry, ...] = (
    _entry(
        1,
        "Shapes that don't broadcast",
        r"The size of tensor a \(.*\) must match the size of tensor b|.*could not be broadcast|"
        r"Shape mismatch: objects cannot be broadcast",
        "Two operands have different sizes in a dimension, and neither size is 1.",
        "Make the sizes equal, or give one operand a size of 1 there (unsqueeze, reshape, keepdim=True).",
        "a, b = torch.ones(4, 3), torch.ones(4)\na + b",
        "a, b = torch.ones(4, 3), torch.ones(4)\na + b.unsqueeze(1)",
    ),
    _entry(
        2,
        "Sizes of a matrix product",
        r"mat1 and mat2 shapes cannot be multiplied|size mismatch, got|Expected size for first two dimensions|"
        r"inconsistent tensor size|.*must match the size of|both arguments to matmul need to be at least 1D|"
        r"batch[12] must be a 3D tensor|self must be a matrix|mat2 must be a matrix|1D tensors expected",
        "The inner sizes of a product differ: columns of the first operand, rows of the second.",
        "Transpose one operand, or correct the sizes of the layer (in_features of a Linear).",
        "layer = torch.nn.Linear(8, 2)\nlayer(torch.ones(4, 10))",
        "layer = torch.nn.Linear(10, 2)\nlayer(torch.ones(4, 10))",
    ),
    _entry(
        3,
        "Operands of different dtypes",
        r"expected m1 and m2 to have the same dtype|.*[Ee]xpected .*same dtype|"
        r"Index put requires the source and destination dtypes match|.*scalar type .* but (found|got)|"
        r"Input type .* and bias type|dot : expected both vectors",
        "The operator does not promote: both operands must have one dtype.",
        "Convert one of them with .to(dtype), or run the region under autocast.",
        "torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.float64)",
        "torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.float64).float()",
    ),
    _entry(
        4,
        "Another number of elements",
        r"shape '.*' is invalid for input of size|cannot reshape tensor of 0 elements|only one dimension can be",
        "view or reshape was asked for a shape with another number of elements.",
        "Choose sizes whose product is numel(), or leave one of them to be computed as -1.",
        "torch.ones(4, 3).view(5, -1)",
        "torch.ones(4, 3).view(6, -1)",
    ),
    _entry(
        5,
        "A view that the strides don't allow",
        r"view size is not compatible with input tensor's size and stride",
        "view never copies, and the elements do not lie in memory as the new shape needs, often after a transpose.",
        "Use reshape, which copies where it must, or contiguous() first.",
        "torch.ones(4, 3).T.view(12)",
        "torch.ones(4, 3).T.reshape(12)",
    ),
    _entry(
        6,
        "A dimension that is not there",
        r"Dimension out of range|Dimension specified as|dim .* appears multiple times|too many indices for tensor",
        "A dim is not between -ndim and ndim - 1, or is given twice.",
        "Check the tensor's shape at this line; count dims from 0, or from the end with negative numbers.",
        "torch.ones(4, 3).sum(dim=2)",
        "torch.ones(4, 3).sum(dim=1)",
    ),
    _entry(
        7,
        "An index outside of the tensor",
        r"index .* is out of bounds|index out of range in self|select\(\): index|.*out of bounds for dimension",
        "An index is not smaller than the size of its dimension (for an Embedding: num_embeddings).",
        "Clamp or check the indices, or enlarge the table that they index.",
        "torch.nn.Embedding(10, 4)(torch.tensor([3, 10]))",
        "torch.nn.Embedding(11, 4)(torch.tensor([3, 10]))",
    ),
    _entry(
        8,
        "Tensors on several devices",
        r"Expected all tensors to be on the same device|Tensor on device \S+ is not on the expected device",
        "The operands of one operator live on different devices.",
        "Move the model and the data to one device with .to(device).",
        'torch.ones(3) + torch.ones(3, device="meta")',
        'torch.ones(3, device="meta") + torch.ones(3, device="meta")',
    ),
    _entry(
        9,
        "Tensors that can't be joined",
        r"Sizes of tensors must match except in dimension|stack expects each tensor to be equal size|"
        r"Tensors must have same number of dimensions|expected a non-empty list of Tensors|"
        r"stack expects a non-empty TensorList|torch\.cat",
        "cat needs equal sizes in all dimensions but the joined one; stack needs equal shapes.",
        "Pad or cut the tensors to one shape, or join along the dimension in which they differ.",
        "torch.cat([torch.ones(2, 3), torch.ones(2, 4)], dim=0)",
        "torch.cat([torch.ones(2, 3), torch.ones(2, 4)], dim=1)",
    ),
    _entry(
        10,
        "One number of several elements",
        r"a Tensor with \d+ elements cannot be converted to Scalar|only integer tensors of a single element",
        "item(), float() and int() need a tensor of exactly one element.",
        "Reduce first (sum, mean, max), or use tolist().",
        "torch.ones(3).item()",
        "torch.ones(3).sum().item()",
    ),
    _entry(
        11,
        "The truth of several elements",
        r"Boolean value of Tensor with",
        "`if`, `and`, `not` need one truth value, and the tensor has several elements or none.",
        "Say which is meant with any() or all(); use &, | and ~ element by element.",
        "x = torch.ones(3)\nif x > 0:\n    pass",
        "x = torch.ones(3)\nif (x > 0).all():\n    pass",
    ),
    _entry(
        12,
        "backward() of something that is no single number",
        r"grad can be implicitly created only for",
        "backward() without an argument starts with 1, which only a single real number has a meaning for.",
        "Reduce the loss with mean() or sum(), or pass a gradient of the tensor's shape.",
        "w = torch.ones(3, requires_grad=True)\n(w * 2).backward()",
        "w = torch.ones(3, requires_grad=True)\n(w * 2).sum().backward()",
    ),
    _entry(
        13,
        "backward() of something without history",
        r"element \d+ of tensors does not require grad and does not have a grad_fn",
        "Nothing that the tensor was computed from requires grad, or a detach(), a no_grad block or item() cut it off.",
        "Set requires_grad on the parameters, and keep the computation out of no_grad and detach.",
        "w = torch.ones(3)\nw.sum().backward()",
        "w = torch.ones(3, requires_grad=True)\nw.sum().backward()",
    ),
    _entry(
        14,
        "A second backward through a freed graph",
        r"Trying to backward through the graph a second time",
        "The first backward freed what was saved; often a tensor computed once is used in the losses of several steps.",
        "Compute it anew in each step (or detach it); or pass retain_graph=True to the first backward.",
        "w = torch.ones(3, requires_grad=True)\ny = w.exp()\ny.sum().backward()\ny.sum().backward()",
        "w = torch.ones(3, requires_grad=True)\nfor _ in range(2):\n    w.exp().sum().backward()",
    ),
    _entry(
        15,
        "A saved tensor was overwritten",
        r"one of the variables needed for gradient computation has been modified by an inplace operation",
        "backward needs a value that an in-place operator changed after it was saved.",
        "Use the operator's form without the trailing underscore, or clone() before the change.",
        "w = torch.ones(3, requires_grad=True)\ny = w.exp()\ny.add_(1)\ny.sum().backward()",
        "w = torch.ones(3, requires_grad=True)\ny = w.exp()\ny = y + 1\ny.sum().backward()",
    ),
    _entry(
        16,
        "A parameter changed in place",
        r"a (view of a )?leaf Variable that requires grad is being used in an in-place operation",
        "A leaf that requires grad can't change in place while gradients are recorded: its gradient has no meaning.",
        "Do it under torch.no_grad(), or compute a new tensor.",
        "w = torch.ones(3, requires_grad=True)\nw -= 0.1",
        "w = torch.ones(3, requires_grad=True)\nwith torch.no_grad():\n    w -= 0.1",
    ),
    _entry(
        17,
        "numpy() of a tensor that requires grad",
        r"Can't call numpy\(\) on Tensor that requires grad",
        "The array would share memory with a tensor on the tape, which could not see its changes.",
        "Use tensor.detach().numpy().",
        "torch.ones(3, requires_grad=True).numpy()",
        "torch.ones(3, requires_grad=True).detach().numpy()",
    ),
    _entry(
        18,
        "A gradient for something that was not used",
        r"One of the differentiated Tensors|The differentiated Tensor at index",
        "autograd.grad was asked for an input that the output does not depend on, or that does not require grad.",
        "Check that it takes part in the computation, or pass allow_unused=True.",
        "a, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)\n"
        "torch.autograd.grad(a.sum(), [a, b])",
        "a, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)\n"
        "torch.autograd.grad(a.sum(), [a, b], allow_unused=True)",
    ),
    _entry(
        19,
        "A result that its place can't hold",
        r"output with shape .* doesn't match the broadcast shape|result type .* can't be cast to|"
        r"The expanded size of the tensor|unsupported operation: more than one element of the written-to tensor",
        "An in-place operator or out= would need another shape or dtype, or writes one element in several places.",
        "Write x = x + y instead of x += y, or convert the operands first.",
        "x = torch.ones(3, dtype=torch.int64)\nx += 0.5",
        "x = torch.ones(3, dtype=torch.int64)\nx = x + 0.5",
    ),
    _entry(
        20,
        "Gradients of integers",
        r"[Oo]nly Tensors of floating point",
        "Only floating-point and complex tensors have derivatives.",
        "Make the tensor with a decimal point or dtype=torch.float32.",
        "torch.tensor([1, 2], requires_grad=True)",
        "torch.tensor([1.0, 2.0], requires_grad=True)",
    ),
    _entry(
        21,
        "A convolution of another number of channels",
        r"Given groups=|Expected 3D \(unbatched\)|Expected \dD|Calculated padded input size per channel|"
        r"Kernel size can't be greater",
        "The input's channels are not what the weight expects, a dimension is missing, or the kernel is too large.",
        "Inputs are (batch, channels, height, width): check the channels, and the sizes after pooling.",
        "torch.nn.Conv2d(3, 8, 5)(torch.ones(1, 1, 28, 28))",
        "torch.nn.Conv2d(1, 8, 5)(torch.ones(1, 1, 28, 28))",
    ),
    _entry(
        22,
        "A state_dict that does not fit",
        r"Error\(s\) in loading state_dict|Error\(s\) in reparametrizing",
        "Names or shapes of the parameters differ from those that were saved.",
        "Build the model as it was when it was saved; strict=False skips names that are missing or unknown.",
        "model = torch.nn.Linear(3, 2)\nmodel.load_state_dict(torch.nn.Linear(4, 2).state_dict())",
        "model = torch.nn.Linear(4, 2)\nmodel.load_state_dict(torch.nn.Linear(4, 2).state_dict())",
    ),
    _entry(
        23,
        "An operator that a dtype does not have",
        r'.*"\w+" not implemented for|.* not supported (for|on)|.*[Ll]ow precision dtypes not supported|'
        r".*could not infer output dtype|mean\(\)",
        "The operator has no meaning, or no kernel, for this dtype.",
        "Convert first, most often with .float().",
        "torch.arange(4).mean()",
        "torch.arange(4).float().mean()",
    ),
    _entry(
        24,
        "An argument of another type",
        r".*argument '\w+' .*must be|.*got an unexpected keyword argument|.*missing \d+ required positional",
        "An argument is no tensor, number or size as the operator's signature says.",
        "Compare the call with the signature; torch.as_tensor makes tensors of lists and arrays.",
        "torch.add([1.0, 2.0], torch.ones(2))",
        "torch.add(torch.as_tensor([1.0, 2.0]), torch.ones(2))",
    ),
    _entry(
        25,
        "Targets that do not fit the predictions",
        r"Target .* is out of bounds|Expected target size|Expected input batch_size|Using a target size|"
        r".*target .*size|all elements of (input|target) should be between|size mismatch \(got input",
        "A loss got classes outside of the predictions' range, or a target of another shape.",
        "Class targets are integers in [0, C) of the batch's shape; the others have the predictions' shape.",
        "torch.nn.functional.cross_entropy(torch.ones(4, 3), torch.zeros(5, dtype=torch.int64))",
        "torch.nn.functional.cross_entropy(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))",
    ),
    _entry(
        26,
        "Parameters that an optimizer can't take",
        r"optimizer got an empty parameter list|can't optimize a non-leaf Tensor|params argument given to the|"
        r"some parameters appear in more than one parameter group|Invalid learning rate|optimizer can only optimize",
        "An optimizer needs leaves (parameters), each once, and sensible options.",
        "Pass model.parameters(), after the model has its final parameters.",
        "torch.optim.SGD([], lr=0.1)",
        "torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)",
    ),
    _entry(
        27,
        "An inference tensor in autograd",
        r"Inference tensors cannot be saved|Inplace update to inference tensor|Setting requires_grad=True on inference",
        "What is made under inference_mode has given up the bookkeeping that autograd needs.",
        "Use no_grad instead of inference_mode, or clone() the tensor outside.",
        "with torch.inference_mode():\n    x = torch.ones(3)\nx * torch.ones(3, requires_grad=True)",
        "with torch.no_grad():\n    x = torch.ones(3)\nx * torch.ones(3, requires_grad=True)",
    ),
    _entry(
        28,
        "A derivative that is NaN",
        r"Function '.*' returned nan values",
        "detect_anomaly found the first backward step that gave NaN; the line is that of its forward call.",
        "Keep the operand away from the singular point (clamp, eps), or choose values before the operator, not after.",
        "x = torch.zeros(1, requires_grad=True)\nwith torch.autograd.detect_anomaly():\n"
        "    y = x.sqrt() * 0\n    y.backward()",
        "x = torch.zeros(1, requires_grad=True)\nwith torch.autograd.detect_anomaly():\n"
        "    y = x.clamp(min=1e-12).sqrt() * 0\n    y.backward()",
    ),
    _entry(
        29,
        "Something that vmap can't do",
        r"vmap|Vmap|Expected all tensors to have the same size in the mapped dimension",
        "Under vmap a tensor stands for a whole batch: there is no single value to read, and dims must fit.",
        "Use torch.where for decisions; check in_dims; say randomness='different' for random operators.",
        "torch.vmap(lambda x: x if x.sum() > 0 else -x)(torch.ones(3, 2))",
        "torch.vmap(lambda x: torch.where(x.sum() > 0, x, -x))(torch.ones(3, 2))",
    ),
    _entry(
        30,
        "A function that a transform can't take",
        r"Expected the function given to grad|During a grad \(vjp|backward\(\) called inside a functorch|"
        r"In order to use an autograd.Function with functorch|jvp\(f, primals|Expected pytree structure|Got argnum=",
        "grad needs one number as result; transforms see only what goes in as argument and comes out as result.",
        "Reduce the result, pass what changes as an argument, or use jacrev and vjp.",
        "from graphtorch.func import grad\n\ngrad(lambda x: x * 2)(torch.ones(3))",
        "from graphtorch.func import grad\n\ngrad(lambda x: (x * 2).sum())(torch.ones(3))",
    ),
    _entry(
        31,
        "A module that is not ready",
        r"cannot assign (parameters|module|buffers?)|Module \[.*\] is missing the required|"
        r"Expected more than 1 value per channel|cannot assign '.*' as (parameter|child module)",
        "super().__init__() was not called first, forward is missing, or a value has the wrong class.",
        "Call super().__init__() in the first line; wrap tensors in nn.Parameter; define forward.",
        "model = torch.nn.Linear(2, 2)\nmodel.weight = torch.ones(2, 2)",
        "model = torch.nn.Linear(2, 2)\nmodel.weight = torch.nn.Parameter(torch.ones(2, 2))",
    ),
    _entry(
        32,
        "A gradient of another shape",
        r"Mismatch in shape: grad_output|attempting to assign a gradient|hook has changed the size|"
        r"function \w+ returned an incorrect number of gradients|gradients can be either Tensors",
        "A gradient must have the shape and dtype of what it belongs to.",
        "Check the shapes; the backward of a custom Function returns one value an argument of forward.",
        "w = torch.ones(3, requires_grad=True)\n(w * 2).backward(torch.ones(2))",
        "w = torch.ones(3, requires_grad=True)\n(w * 2).backward(torch.ones(3))",
    ),
    _entry(
        33,
        "A matrix that the factorisation does not take",
        r".*(is singular|not positive-definite|must be batches of square matrices|be a square|must be square)|linalg\.",
        "The matrix is singular, not positive-definite, or not square.",
        "Add a small multiple of the identity, or use lstsq or pinv.",
        "torch.linalg.inv(torch.zeros(2, 2))",
        "torch.linalg.pinv(torch.zeros(2, 2))",
    ),
    _entry(
        40,
        "Python needs to know a value during capture",
        r"(bool|int|float|complex|__index__)\(\) of a recorded tensor",
        "With fullgraph=True a function is one graph, and a Python decision on tensor data would need two.",
        "Choose with torch.where, use torch.cond or while_loop, or leave fullgraph=True out.",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    if x.sum() > 0:\n        return x\n    return -x\n\n\n"
        "f(torch.ones(3))",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    return torch.where(x.sum() > 0, x, -x)\n\n\nf(torch.ones(3))",
    ),
    _entry(
        41,
        "Data that does not exist yet",
        r".* of a recorded tensor |\w+\(\) on a tensor that was recorded",
        "While a function is captured its tensors have shapes and dtypes, and no data to read.",
        "Return the tensor and read it outside, or leave fullgraph=True out.",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    return x * x.numpy().max()\n\n\nf(torch.ones(3))",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    return x * x.max()\n\n\nf(torch.ones(3))",
    ),
    _entry(
        42,
        "A change of Python objects at each call",
        r"each call changes",
        "A graph repeats what is done to tensors, and Python's arithmetic beside it. A list that grows or a "
        "mode set for good is neither.",
        "Return the new value, keep a number or a tensor that changes in place, or leave fullgraph=True out.",
        "seen = [0]\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n    seen.append(x.shape[0])\n    return x * 2\n\n\n"
        "f(torch.ones(3))",
        "seen = [0]\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n    seen[0] += x.shape[0]\n    return x * 2\n\n\n"
        "f(torch.ones(3))",
    ),
    _entry(
        43,
        "A tensor of another capture",
        r"a tensor recorded by another",
        "A tensor that was made while a function was captured was kept (in a cache, in an object) and used later.",
        "Return it from the compiled function, or make it outside.",
        "torch.nn.kept = []  # as a library might have a cache\n\n\n"
        "@torch.compile\ndef f(x):\n    torch.nn.kept.append(x * 2)\n    return x\n\n\n"
        "f(torch.ones(3))\ntorch.compile(lambda: torch.nn.kept[0] + 1)()",
        "torch.nn.kept = []\n\n\n"
        "@torch.compile\ndef f(x):\n    return x, x * 2\n\n\n"
        "torch.nn.kept.append(f(torch.ones(3))[1])\ntorch.compile(lambda: torch.nn.kept[0] + 1)()",
    ),
    _entry(
        44,
        "detach_() during capture",
        r"detach_\(\) inside a compiled function",
        "A graph can't take a tensor that exists already out of its history.",
        "Use y = y.detach().",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    y = x * 2\n    return y.detach_()\n\n\nf(torch.ones(3))",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    y = x * 2\n    return y.detach()\n\n\nf(torch.ones(3))",
    ),
    _entry(
        45,
        "Another .data during capture",
        r"assigning \.data of another shape",
        "Assigning .data in a compiled function writes new elements; the shape and dtype must stay.",
        "Assign outside of the compiled function.",
        "w = torch.ones(3)\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n    w.data = x[:2]\n    return w * 2\n\n\n"
        "f(torch.ones(3))",
        "w = torch.ones(3)\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n    w.data = x\n    return w * 2\n\n\n"
        "f(torch.ones(3))",
    ),
    _entry(
        46,
        "A backward pass that leaves the compiled function",
        r"(backward|autograd\.grad)\(\) inside the compiled function reaches",
        "The gradient would flow into what was computed before the call, whose graph the capture can't see.",
        "Compute it inside the compiled function, or pass it detached.",
        "w = torch.ones(3, requires_grad=True)\nh = w * 2\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n"
        "    (x * h).sum().backward()\n\n\nf(torch.ones(3))",
        "w = torch.ones(3, requires_grad=True)\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n    h = w * 2\n"
        "    (x * h).sum().backward()\n\n\nf(torch.ones(3))",
    ),
    _entry(
        47,
        "A hook that each call would add",
        r"register_hook\(\) on",
        "A hook on a tensor from outside would be registered once more at each call.",
        "Register it outside of the compiled function, once.",
        "w = torch.ones(3, requires_grad=True)\n\n\n@torch.compile(fullgraph=True)\ndef f(x):\n"
        "    w.register_hook(lambda g: g * 2)\n    (x * w).sum().backward()\n\n\nf(torch.ones(3))",
        "w = torch.ones(3, requires_grad=True)\nw.register_hook(lambda g: g * 2)\n\n\n"
        "@torch.compile(fullgraph=True)\ndef f(x):\n    (x * w).sum().backward()\n\n\nf(torch.ones(3))",
    ),
    _entry(
        48,
        "Control flow whose parts do not fit",
        r"branches of cond|a branch or body|a body of while_loop|a while_loop of|a function of scan|"
        r"an in-place change, in a branch",
        "The branches of cond, or a body and what it takes, must agree in their types, and change nothing outside.",
        "Return tensors of equal types from all parts.",
        "@torch.compile(fullgraph=True)\ndef f(x):\n"
        "    return torch.cond(x.sum() > 0, lambda x: x, lambda x: x[:2], (x,))\n\n\nf(torch.ones(3))",
        "@torch.compile(fullgraph=True)\ndef f(x):\n"
        "    return torch.cond(x.sum() > 0, lambda x: x, lambda x: -x, (x,))\n\n\nf(torch.ones(3))",
    ),
    _entry(
        49,
        "Something else that one graph can't express",
        r".*\n  at .*\n  what to do: ",
        "The compiled function does something that a graph of operators does not have.",
        "The message says what to do instead; without fullgraph=True some of these run eagerly.",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    return x.cfloat().sum().item()\n\n\nf(torch.ones(3))",
        "@torch.compile(fullgraph=True)\ndef f(x):\n    return x.to(torch.complex64).sum()\n\n\nf(torch.ones(3))",
    ),
    _entry(
        60,
        "More specialisations than allowed",
        r".*recompile_limit",
        "Calls differ in what the function was specialised for: see explain() for what changed each time.",
        "Pass what varies as numbers or tensors, mark sizes with mark_dynamic, or raise recompile_limit.",
        'f = torch.compile(lambda x, name: x * len(name), recompile_limit=2, on_recompile="error")\n'
        'for n in range(5):\n    f(torch.ones(3), "n" * n)',
        'f = torch.compile(lambda x, n: x * n, recompile_limit=2, on_recompile="error")\n'
        "for n in range(5):\n    f(torch.ones(3), n)",
    ),
    _entry(
        61,
        "A compiled function that differs from eager execution",
        r"check=True: ",
        "A check run found an operator whose compiled result is not the eager one.",
        "Is the function random or does it read the clock? If not, it is a bug of graphtorch: report the reduced step.",
        "import sqlite3\n\ncalls = sqlite3.connect(':memory:')\n"
        "calls.execute('CREATE TABLE calls (id INTEGER PRIMARY KEY)')\n\n\n"
        "def unsteady(x):\n    return x * calls.execute('INSERT INTO calls DEFAULT VALUES').lastrowid\n\n\n"
        "torch.compile(unsteady, check=True)(torch.ones(3))",
        "torch.compile(lambda x: x * 3, check=True)(torch.ones(3))",
    ),
    _entry(
        62,
        "An exported program that can't be loaded or called",
        r"export: |exported program",
        "The files are damaged or not what export writes, or a call does not fit what was exported.",
        "Export again; call with arguments of the shapes and dtypes that the message names.",
        "import os\nimport tempfile\n\npath = os.path.join(tempfile.mkdtemp(), 'double')\n"
        "torch.export(lambda x: x * 2, (torch.ones(3),), path)\ntorch.load_exported(path)(torch.ones(4))",
        "import os\nimport tempfile\n\npath = os.path.join(tempfile.mkdtemp(), 'double')\n"
        "torch.export(lambda x: x * 2, (torch.ones(3),), path)\ntorch.load_exported(path)(torch.ones(3))",
    ),
    _entry(
        63,
        "A file that is no checkpoint",
        r".*(Invalid magic number|Weights only load failed|not a ZIP|PytorchStreamReader|is not a checkpoint)|"
        r"invalid load key",
        "load reads what save or torch.save wrote and, unless weights_only=False asks for it, nothing that would "
        "execute code.",
        "Save the state_dict instead of objects, or load a file that you trust with weights_only=False; check that it "
        "is complete.",
        "import io\n\ntorch.load(io.BytesIO(b'no checkpoint at all'))",
        "import io\n\nfile = io.BytesIO()\ntorch.save(torch.ones(3), file)\nfile.seek(0)\ntorch.load(file)",
    ),
)
BY_CODE = {entry.code: entry for entry in ENTRIES}

"""The workloads of benchmarks/cpu.py in the forms that suit other frameworks best: JAX programs with donated state, and
PyTorch steps whose backward is inside the compiled graph (`torch.func`), convolutions in channels-last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[..., Any]

# Rates and betas of the optimizers that benchmarks/cpu.py names.
RATES = {"mlp": 1e-4, "wide_mlp": 1e-6, "lenet4": 1e-5, "lenet128": 1e-5, "gpt": 1e-6}
BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 1e-2


# -- JAX --------------------------------------------------------------------------------------------------------------


def jax_step(workload: str, given: tuple[np.ndarray, ...], weights: list[np.ndarray]) -> Callable[[], Any]:
    """A function that runs one step and waits for it. `weights` are the model's parameters in PyTorch's order."""
    import jax
    import jax.numpy as jnp

    inputs = [jax.device_put(x) for x in given]
    if workload in ("chain", "norms"):
        compiled = jax.jit(_jax_chain if workload == "chain" else _jax_norms)
        return lambda: jax.block_until_ready(compiled(*inputs))
    if workload == "adamw":
        parameters = [jax.device_put(w) for w in weights]
        gradients = [jax.device_put(w) for w in weights]
        update = jax.jit(lambda p, state, t, g: _adam(jnp, p, g, state, t, 1e-3, DECAY), donate_argnums=(0, 1))
        held = [(parameters, [(jnp.zeros_like(p), jnp.zeros_like(p)) for p in parameters], jnp.float32(0.0))]

        def run_update() -> None:
            held[0] = jax.block_until_ready(update(*held[0], gradients))

        return run_update
    forward = {"mlp": _jax_mlp, "wide_mlp": _jax_mlp, "lenet4": _jax_lenet, "lenet128": _jax_lenet, "gpt": _jax_gpt}
    model, rate = forward[workload], RATES[workload]

    def loss_of(parameters: list[Any], x: Any, y: Any) -> Any:
        logits = model(parameters, x)
        logits = logits.reshape(-1, logits.shape[-1])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y.reshape(-1, 1), axis=1)
        return -picked.mean()

    def step(parameters: list[Any], state: Any, t: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        if workload == "mlp":
            parameters = [p - rate * g for p, g in zip(parameters, gradients, strict=True)]
        elif workload.startswith("lenet"):
            state = [(0.9 * v + g, u) for (v, u), g in zip(state, gradients, strict=True)]
            parameters = [p - rate * v for p, (v, _) in zip(parameters, state, strict=True)]
        else:
            decay = DECAY if workload == "gpt" else 0.0
            parameters, state, t = _adam(jnp, parameters, gradients, state, t, rate, decay)
        return loss, parameters, state, t

    compiled_step = jax.jit(step, donate_argnums=(0, 1))
    start = [jax.device_put(w) for w in weights]
    current = [(start, [(jnp.zeros_like(p), jnp.zeros_like(p)) for p in start], jnp.float32(0.0))]

    def run() -> Any:
        loss, *state = jax.block_until_ready(compiled_step(*current[0], *inputs))
        current[0] = tuple(state)
        return loss

    return run


def _adam(jnp: Any, parameters: Any, gradients: Any, state: Any, t: Any, rate: float, decay: float) -> Any:
    (b1, b2), t = BETAS, t + 1
    step = rate / (1 - b1**t)
    root = jnp.sqrt(1 - b2**t)
    made, moments = [], []
    for p, g, (m, v) in zip(parameters, gradients, state, strict=True):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        made.append(p * (1 - rate * decay) - step * m / (jnp.sqrt(v) / root + EPSILON))
        moments.append((m, v))
    return made, moments, t


def _jax_chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    import jax.numpy as jnp
    from jax.nn import sigmoid

    t = x * a + b
    return 0.5 * t * (1 + jnp.tanh(0.7978845608 * (t + 0.044715 * t * t * t))) * sigmoid(c) + x


def _jax_layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    import jax

    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weight + bias


def _jax_norms(x: Any, weight: Any, bias: Any, g: Any) -> Any:
    import jax

    _, pull = jax.vjp(lambda *operands: jax.nn.softmax(_jax_layer_norm(*operands), -1), x, weight, bias)
    return pull(g)


def _jax_mlp(parameters: list[Any], x: Any) -> Any:
    import jax

    for i in range(0, len(parameters), 2):
        x = x @ parameters[i].T + parameters[i + 1]
        x = jax.nn.relu(x) if i + 2 < len(parameters) else x
    return x


def _jax_lenet(parameters: list[Any], x: Any) -> Any:
    import jax

    for i in (0, 2):
        x = jax.lax.conv_general_dilated(x, parameters[i], (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = jax.nn.relu(x + parameters[i + 1][:, None, None])
        x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _jax_mlp(parameters[4:], x.reshape(len(x), -1))


def _jax_gpt(parameters: list[Any], ids: Any) -> Any:
    import jax
    import jax.numpy as jnp

    heads = 4
    tokens, places, *rest, norm_weight, norm_bias, head = parameters
    b, t = ids.shape
    w = tokens.shape[1]
    x = tokens[ids] + places
    mask = jnp.triu(jnp.ones((t, t), bool), 1)
    for i in range(0, len(rest), 12):
        n1w, n1b, n2w, n2b, qkv, qkv_bias, out, out_bias, up, up_bias, down, down_bias = rest[i : i + 12]
        mixed = _jax_layer_norm(x, n1w, n1b) @ qkv.T + qkv_bias
        q, k, v = mixed.reshape(b, t, 3, heads, w // heads).transpose(2, 0, 3, 1, 4)
        scores = jnp.where(mask, -jnp.inf, (q @ k.swapaxes(-2, -1)) * (w // heads) ** -0.5)
        x = x + (jax.nn.softmax(scores, -1) @ v).swapaxes(1, 2).reshape(b, t, w) @ out.T + out_bias
        hidden = jax.nn.gelu(_jax_layer_norm(x, n2w, n2b) @ up.T + up_bias, approximate=False)
        x = x + hidden @ down.T + down_bias
    return _jax_layer_norm(x, norm_weight, norm_bias) @ head.T


# -- PyTorch, the whole step in one compiled graph --------------------------------------------------------------------


def whole_step(torch: Any, workload: str, model: Any, extra: tuple[Any, ...]) -> Step:
    """`step(x, y)` of a classifier or of the GPT, to be compiled: gradients by `torch.func`, state updated in place."""
    rate = RATES[workload]
    if workload.startswith("lenet"):
        model.to(memory_format=torch.channels_last)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    first = {n: torch.zeros_like(p) for n, p in parameters.items()}
    second = {n: torch.zeros_like(p) for n, p in parameters.items()}
    count = torch.zeros(())

    def loss_of(current: dict[str, Any], x: Any, y: Any) -> Any:
        logits = torch.func.functional_call(model, current, (x, *extra))
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))

    def step(x: Any, y: Any) -> Any:
        gradients, loss = torch.func.grad_and_value(loss_of)(parameters, x, y)
        if workload == "mlp":
            for n, p in parameters.items():
                p.sub_(rate * gradients[n])
            return loss
        if workload.startswith("lenet"):
            for n, p in parameters.items():
                first[n].mul_(0.9).add_(gradients[n])
                p.sub_(rate * first[n])
            return loss
        count.add_(1)
        (b1, b2), decay = BETAS, DECAY if workload == "gpt" else 0.0
        size, root = rate / (1 - b1**count), torch.sqrt(1 - b2**count)
        for n, p in parameters.items():
            first[n].lerp_(gradients[n], 1 - b1)
            second[n].mul_(b2).addcmul_(gradients[n], gradients[n], value=1 - b2)
            p.mul_(1 - rate * decay).sub_(size * first[n] / (second[n].sqrt() / root + EPSILON))
        return loss

    return step

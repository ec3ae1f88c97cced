"""What a dense model puts on top of its encoder, before normalising: pooling, then Dense modules."""

from __future__ import annotations

from collections.abc import Callable

from lemni.errors import ModelLoadError
from lemni.hub.spec import DenseLayer, ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.tasks.pooling import pooling_table

# torch class name of sentence-transformers' `activation_function` -> name in ops.
_ACTIVATIONS = {
    "Identity": "linear",
    "Tanh": "tanh",
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


def dense_head(spec: ModelSpec) -> Callable[[Ops], Callable[[Tensor, Inputs], Tensor]]:
    """Pooling (several modes are concatenated) and the Dense modules of a model, over ops."""
    table = pooling_table(spec.include_prompt)
    pooling = [table[mode] for mode in spec.pooling]

    def build(ops: Ops) -> Callable[[Tensor, Inputs], Tensor]:
        layers = dense_modules(spec, ops)

        def head(hidden: Tensor, inputs: Inputs) -> Tensor:
            parts = [pool(ops, hidden, inputs) for pool in pooling]
            x = parts[0] if len(parts) == 1 else ops.concat(parts)
            for layer in layers:
                x = layer(x)
            return x

        return head

    return build


def dense_modules(spec: ModelSpec, ops: Ops) -> tuple[Callable[[Tensor], Tensor], ...]:
    """The Dense modules after pooling, in order: [B, in] -> [B, out]."""
    return tuple(dense_layer(layer, ops) for layer in spec.dense)


def dense_layer(layer: DenseLayer, ops: Ops) -> Callable[[Tensor], Tensor]:
    """activation(x W^T + b), and x or x R^T added: [n, in] -> [n, out].

    Reference: sentence-transformers, `base/modules/dense.py`.
    """
    if layer.activation not in _ACTIVATIONS:
        raise ModelLoadError(f"{layer.path}: activation {layer.activation!r} is none of {', '.join(_ACTIVATIONS)}")
    store = TensorStore([layer.path])
    weight = ops.constant(store.numpy("linear.weight"))
    bias = ops.constant(store.numpy("linear.bias")) if layer.bias else None
    activation = _ACTIVATIONS[layer.activation]
    if not layer.residual:
        return lambda x: ops.activation(ops.linear(x, weight, bias), activation)
    if layer.in_features == layer.out_features:
        return lambda x: ops.activation(ops.linear(x, weight, bias), activation) + x
    past = ops.constant(store.numpy("residual.weight"))
    return lambda x: ops.activation(ops.linear(x, weight, bias), activation) + ops.linear(x, past)

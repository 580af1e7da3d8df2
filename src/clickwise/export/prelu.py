"""PReLU in an ONNX file without a branch: ONNX Runtime chooses between two tensors, for `Where` and for `PRelu`, number
by number, which takes ten times as long as arithmetic on all of them.
"""

from __future__ import annotations

from typing import Any


def without_branches(model: Any, ir: Any) -> None:
    """Replaces every `where(x > 0, x, slope * x)` of an `onnx_ir` model by max(x, 0) + slope · min(x, 0)."""
    for node in list(model.graph):
        if (found := _prelu(node)) is None:
            continue
        x, slope, zero = found
        tape = ir.tape.Tape()
        below = tape.op("Mul", [slope, tape.op("Min", [x, zero])])
        made = tape.op("Add", [tape.op("Relu", [x]), below])
        for number, value in enumerate(value for part in tape.nodes for value in part.outputs):
            value.name = f"{node.name}_{number}"
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], list(tape.nodes), node.outputs, [made])


def _prelu(node: Any) -> tuple[Any, Any, Any] | None:
    """(x, slope, 0) where the node is the choice of a PReLU."""
    if node.op_type != "Where":
        return None
    condition, x, other = node.inputs
    is_above, product = condition.producer(), other.producer()
    if is_above is None or product is None or (is_above.op_type, product.op_type) != ("Greater", "Mul"):
        return None
    zero = is_above.inputs[1]
    if is_above.inputs[0] is not x or zero.const_value is None or zero.const_value.numpy().tolist() not in (0, [0]):
        return None
    slope, scaled = product.inputs if product.inputs[1] is x else reversed(product.inputs)
    return (x, slope, zero) if scaled is x else None

"""GRU and AUGRU in an ONNX file: one Scan over the positions, of any length, in place of as many copies of a step.

While the graph is recorded a recurrence is one operator of our own, which becomes a Scan when all else is ONNX.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clickwise.kernels.augru import Form
from clickwise.layers.gru import AUGRU, GRU

DOMAIN = "clickwise"
STAYS = 1e9  # added to what a sigmoid is taken of, which then is 1


def record_recurrences(model: nn.Module) -> None:
    """Has the model's recurrences recorded as one operator each."""
    for module in model.modules():
        if isinstance(module, (GRU, AUGRU)):
            module.recurrence = recorded


def recorded(x_LBE: torch.Tensor, input_GE: torch.Tensor, bias_G: torch.Tensor, weight_GH: torch.Tensor,
             inner_bias_H: torch.Tensor | None, form: Form, *, attention_LB: torch.Tensor | None = None,
             mask_LB: torch.Tensor | None = None, every_state: bool = True) -> torch.Tensor:
    """As `clickwise.kernels.augru.recurrence`, for a graph alone."""
    width = weight_GH.shape[1]
    flat_VG = F.linear(x_LBE.flatten(0, 1), input_GE, bias_G)  # of matrices a product takes its bias along
    gates_LBZ, new_LBH = flat_VG.view(*x_LBE.shape[:2], -1).split([2 * width, width], dim=-1)
    if mask_LB is not None and attention_LB is not None:
        attention_LB = attention_LB * mask_LB
    if mask_LB is not None and form != "paper":  # where attention 0 does it already
        away_LBH = (~mask_LB).float().unsqueeze(-1).expand(-1, -1, width)
        gates_LBZ = gates_LBZ + F.pad(STAYS * away_LBH, (0, width))
    samples = x_LBE.shape[1]
    inputs = [torch.zeros(samples, width), gates_LBZ, new_LBH,
              None if attention_LB is None else attention_LB.unsqueeze(-1), weight_GH[:2 * width].t(),
              weight_GH[2 * width:].t(), inner_bias_H]
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{form}", inputs, {"every_state": every_state}, dtype=torch.float32,
                                   shape=[*x_LBE.shape[:2], width] if every_state else [samples, width], version=1)


def as_scans(model: Any, ir: Any) -> None:
    """Replaces every recorded recurrence of an `onnx_ir` model by a Scan."""
    for node in list(model.graph):
        if node.domain == DOMAIN:
            scan = _scan(ir, node)
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [scan], node.outputs,
                                                    scan.outputs[node.attributes["every_state"].as_int():][:1])
    model.graph.opset_imports.pop(DOMAIN, None)


def _scan(ir: Any, node: Any) -> Any:
    first, gates, new, attention, weight_zr, weight_n, bias_n = [*node.inputs, *[None] * 7][:7]
    form, every_state = node.op_type, bool(node.attributes["every_state"].as_int())
    over = [value for value in (gates, new, attention) if value is not None]

    def step_value(name: str) -> Any:
        return ir.Value(name=f"{node.name}_{name}", type=ir.TensorType(ir.DataType.FLOAT))

    h, x_gates, x_new, a = (step_value(name) for name in ("state", "gates", "new", "attention"))
    step = ir.tape.Tape()

    def op(kind: str, *inputs: Any, **attributes: Any) -> Any:
        return step.op(kind, inputs, attributes or None)

    one = op("Constant", value=ir.tensor([1.0], dtype=ir.DataType.FLOAT))
    gates_ZR = op("Sigmoid", op("Gemm", h, weight_zr, x_gates))
    z, r = step.op_multi_out("Split", [gates_ZR], {"axis": 1, "num_outputs": 2}, num_outputs=2)
    if form == "compat":
        n = op("Tanh", op("Gemm", op("Mul", r, h), weight_n, x_new))
    else:
        inner = op("MatMul", h, weight_n) if bias_n is None else op("Gemm", h, weight_n, bias_n)
        n = op("Tanh", op("Add", x_new, op("Mul", r, inner)))
    keep = z
    if form == "paper":
        keep = op("Sub", one, op("Mul", a, z))
    elif form == "compat":
        keep = op("Mul", op("Sub", one, a), z)
    after = op("Add", op("Mul", keep, h), op("Mul", op("Sub", one, keep), n))
    outputs = [after, op("Identity", after)] if every_state else [after]
    for number, value in enumerate(value for made in step.nodes for value in made.outputs):
        value.name = f"{node.name}_{number}"
    for value in outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    body = ir.Graph([h, x_gates, x_new, *([] if attention is None else [a])], outputs, nodes=list(step.nodes),
                    name=f"{node.name}_step")
    return ir.Node("", "Scan", [first, *over],
                   ir.convenience.convert_attributes({"body": body, "num_scan_inputs": len(over)}),
                   num_outputs=len(outputs), name=node.name)

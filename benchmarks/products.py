"""Matrix products on one core by MKL and by oneDNN: the measurements behind the table in `kernels/cpu_products.py`.

    python benchmarks/products.py --repeats 15

Of x [rows, inputs] and weights [outputs, inputs], in microseconds of processor time, and how many times as long oneDNN
takes as MKL; above 1 MKL is faster. The kinds are those of the table:
new         x Wᵀ + b, a matrix of its own
written     x Wᵀ added to three quarters of a wider matrix, as recurrences do
of columns  gradientᵀ x added to the gradient of the weights
packed      x Wᵀ + b of six matrices in turns that oneDNN has laid out beforehand, as scoring does
bf16        x Wᵀ + b: oneDNN in bfloat16 against MKL in float32, with the conversions of x and of the result
"""

from __future__ import annotations

from itertools import cycle

from measure import arguments, finish, measure_alternating

SHAPES = ((64, 32, 32), (64, 36, 36), (64, 96, 96), (64, 96, 288), (64, 300, 200), (256, 80, 40), (256, 96, 288),
          (640, 32, 288), (640, 96, 288), (1024, 36, 108), (1024, 96, 288), (2048, 80, 40), (2048, 96, 288),
          (2048, 300, 200), (2048, 512, 256), (2048, 1024, 1024))
PACKED = tuple((rows, inputs, outputs) for inputs, outputs in ((96, 288), (512, 256), (1024, 256), (1024, 1024))
               for rows in (1, 2, 4, 8, 64))
IN_TURNS = 6  # matrices of weights that are packed, as of a model's layers: one alone would stay in a cache
AT_ONCE = 2**24  # multiply-adds of a turn, about: short products are repeated


def products(rows: int, inputs: int, outputs: int) -> dict[str, dict[str, object]]:
    """By kind the product by either library, a call each."""
    import torch

    from clickwise.kernels import cpu_products

    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    grad, of_weight = torch.randn(rows, outputs), torch.zeros(outputs, inputs)
    part = torch.zeros(rows, outputs + outputs // 3)[:, :outputs]
    weight_16, bias_16, of_float = weight.bfloat16(), bias.bfloat16(), torch.empty(rows, outputs)
    onednn, mkl = cpu_products._by_onednn, cpu_products._by_mkl

    def columns_by_onednn() -> None:
        if inputs < outputs:
            of_weight.add_(onednn(x.t(), grad.t()).t())
        else:
            of_weight.add_(onednn(grad.t(), x.t()))

    return {"new": {"MKL": lambda: mkl(x, weight, bias), "oneDNN": lambda: onednn(x, weight, bias)},
            "written": {"MKL": lambda: part.addmm_(x, weight.t()), "oneDNN": lambda: part.add_(onednn(x, weight))},
            "of columns": {"MKL": lambda: of_weight.addmm_(grad.t(), x), "oneDNN": columns_by_onednn},
            "bf16": {"MKL": lambda: mkl(x, weight, bias, of_float),
                     "oneDNN": lambda: onednn(x.bfloat16(), weight_16, bias_16, of_float)}}


def packed_products(rows: int, inputs: int, outputs: int) -> dict[str, dict[str, object]]:
    """As `products`, of packed weights."""
    import torch

    from clickwise.kernels import cpu_products, prepacked

    x, bias = torch.randn(rows, inputs), torch.randn(outputs)
    weights = [torch.randn(outputs, inputs) for _ in range(IN_TURNS)]
    plain, packed = cycle(weights), cycle([prepacked._packed(weight, torch.float32) for weight in weights])
    return {"packed": {"MKL": lambda: cpu_products._by_mkl(x, next(plain), bias),
                       "oneDNN": lambda: prepacked._product_of_packed(x, next(packed), bias)}}


def main() -> None:
    options = arguments(__doc__).parse_args()
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = []
    for ways_of, (rows, inputs, outputs) in [*((products, shape) for shape in SHAPES),
                                             *((packed_products, shape) for shape in PACKED)]:
        size = rows * inputs * outputs
        calls = max(1, AT_ONCE // size)

        def turn(call, calls=calls):
            return lambda: [call() for _ in range(calls)]

        for kind, ways in ways_of(rows, inputs, outputs).items():
            if kind == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
                continue
            timings = measure_alternating({name: turn(call) for name, call in ways.items()}, repeats=options.repeats)
            mkl, onednn = timings["MKL"], timings["oneDNN"]
            results.append({"rows": rows, "inputs": inputs, "outputs": outputs, "multiply-adds": size, "kind": kind,
                            "MKL µs": 1e6 * mkl.cpu_s / calls, "MKL min": 1e6 * min(mkl.cpu) / calls,
                            "oneDNN µs": 1e6 * onednn.cpu_s / calls, "oneDNN min": 1e6 * min(onednn.cpu) / calls,
                            "oneDNN / MKL": onednn.cpu_s / mkl.cpu_s})
    finish("products", results, options, capability=torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main()

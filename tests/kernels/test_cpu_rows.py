import pytest
import torch

from clickwise.kernels.cpu_rows import numbers, rows_at, sum_of_rows


@pytest.mark.parametrize("count", [0, 1, 5, 300])
@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 3, 16, 129])
def test_rows_are_those_of_the_matrix_to_the_bit(dim, dtype, ids, count):
    generator = torch.Generator().manual_seed(dim)
    matrix_RD = torch.randn(9, dim, generator=generator).to(dtype)
    rows_V = torch.randint(0, 9, (count,), generator=generator).to(ids)
    assert torch.equal(rows_at(matrix_RD, rows_V), matrix_RD[rows_V.long()])


def test_a_row_that_is_no_number_stays_one():
    matrix_RD = torch.tensor([[1.0, float("nan")], [float("inf"), -2.0]])
    torch.testing.assert_close(rows_at(matrix_RD, torch.tensor([1, 0])), matrix_RD.flip(0), rtol=0, atol=0,
                               equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3), (1, 5), (2048, 40), (700, 1)], ids=str)
def test_the_sum_of_rows_is_rounded_once(shape, dtype):
    x_BN = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 1).to(dtype)
    found = sum_of_rows(x_BN)
    assert found.dtype == dtype and found.shape == shape[1:]
    torch.testing.assert_close(found.double(), x_BN.double().sum(0),  # half a unit in the last place, and a little
                               rtol=1.01 * torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 1e-5, atol=0)


def test_numbers_count_from_0():
    assert numbers(0).tolist() == [] and numbers(1).tolist() == [0] and numbers(5, torch.int32).tolist() == [*range(5)]
    assert numbers(5, torch.int32).dtype == torch.int32

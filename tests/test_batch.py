import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.batch import Batch, Ragged, _copied

DTYPES = (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32)


class Copy:
    """Copies, and remembers how many bytes each time."""

    def __init__(self):
        self.sizes = []

    def __call__(self, tensor):
        self.sizes.append(tensor.nbytes)
        return tensor.clone()


def in_buffer(buffer, start, shape, dtype):
    size = int(np.prod(shape)) * dtype.itemsize
    return buffer[start:start + size].view(dtype).view(shape)


def loader_batch(samples=3, lists=((1, 2), (), (5,)), dtype=torch.int32):
    """A batch as a loader makes it: one buffer, every tensor at a multiple of 64 bytes."""
    buffer, at, parts = torch.randint(0, 2, (4096,), dtype=torch.uint8), 0, []
    shapes = [((samples, 2), torch.float16), ((samples,), torch.int8), ((sum(map(len, lists)),), dtype),
              ((samples + 1,), torch.int64), ((samples,), torch.bool), ((samples,), torch.int64)]
    for shape, kind in shapes:
        parts.append(in_buffer(buffer, at, shape, kind))
        at += -(-parts[-1].nbytes // 64) * 64
    numerical, ids, values, offsets, label, display = parts
    values.copy_(torch.tensor([i for bag in lists for i in bag]))
    offsets.copy_(torch.tensor([0] + [len(bag) for bag in lists]).cumsum(0))
    return Batch(numerical=numerical, categorical=(ids, Ragged(values, offsets)), label=label, display=display)


def tensors_of(batch):
    found = []
    batch.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_copied(copies, tensors):
    for copied, tensor in zip(copies, tensors, strict=True):
        assert copied.dtype == tensor.dtype and copied.shape == tensor.shape
        assert copied.numpy().tobytes() == tensor.numpy().tobytes()
        if tensor.numel():
            assert copied.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()


def test_a_loaders_batch_crosses_in_one_copy():
    copy, tensors = Copy(), tensors_of(loader_batch())
    assert_copied(_copied(tensors, copy), tensors)
    assert len(tensors) == 6 and len(copy.sizes) == 1 and copy.sizes[0] < 6 * 64


def test_empty_lists_and_no_samples():
    for batch in (loader_batch(lists=((), (), ())), loader_batch(samples=0, lists=())):
        tensors = tensors_of(batch)
        assert_copied(_copied(tensors, Copy()), tensors)
    assert _copied([], Copy()) == []


@settings(deadline=None)
@given(data=st.data())
def test_every_layout_in_every_buffer_arrives_as_it_was(data):
    buffers = [torch.randint(0, 2, (size,), dtype=torch.uint8) for size in (64, 1000, 300_000)]
    tensors = []
    for _ in range(data.draw(st.integers(1, 8))):
        buffer, dtype = data.draw(st.sampled_from(buffers)), data.draw(st.sampled_from(DTYPES))
        count = data.draw(st.integers(0, 5))
        start = data.draw(st.integers(0, (len(buffer) - count * dtype.itemsize) // dtype.itemsize)) * dtype.itemsize
        tensor = in_buffer(buffer, start, (count,), dtype)
        tensors.append(data.draw(st.sampled_from((tensor, tensor[::2], tensor[1:], tensor[None].expand(2, -1)))))
    copy = Copy()
    assert_copied(_copied(tensors, copy), tensors)
    assert len(copy.sizes) <= len(tensors)
    assert sum(copy.sizes) <= sum(2 * tensor.nbytes for tensor in tensors) + len(buffers) * 2**17


def test_small_parts_of_something_large_are_copied_alone():
    large = torch.arange(10_000_000)
    copy, tensors = Copy(), [large[5:8], large[9_000_000:9_000_100]]
    assert_copied(_copied(tensors, copy), tensors)
    assert copy.sizes == [24, 800]
    copy, tensors = Copy(), [large[5_000_000:5_000_100], large[5_000_100:5_000_200]]  # but these lie side by side
    assert_copied(_copied(tensors, copy), tensors)
    assert len(copy.sizes) == 1 and copy.sizes[0] <= 1600 + 64


def test_storages_at_one_address_are_told_apart():
    array = np.arange(100, dtype=np.int64)
    tensors = [torch.from_numpy(array[:2]), torch.from_numpy(array[:3]), torch.from_numpy(array)]
    assert tensors[0].untyped_storage().data_ptr() == tensors[2].untyped_storage().data_ptr()
    assert_copied(_copied(tensors, Copy()), tensors)


def test_a_batch_that_is_there_is_itself():
    batch = loader_batch()
    assert batch.to("cpu") is batch and batch.to(torch.device("cpu")) is batch
    assert Batch().to("meta") == Batch()


def test_shapes_and_types_on_another_device():
    batch = loader_batch()
    moved = batch.to("meta")
    for there, here in zip(tensors_of(moved), tensors_of(batch), strict=True):
        assert there.device.type == "meta" and there.shape == here.shape and there.dtype == here.dtype
    assert isinstance(moved.categorical[1], Ragged) and len(moved) == len(batch) == 3
    ids = torch.tensor([1, 2])
    both = Batch(categorical=(ids, ids.to("meta"), ids)).to("meta")
    assert all(column.device.type == "meta" for column in both.categorical)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_to_a_gpu_and_back():
    batch = loader_batch()
    there = batch.to("cuda")
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors_of(there)}) == 1
    assert there.to("cuda") is there and there.to("cuda:0") is there
    assert_copied(tensors_of(there.to("cpu")), tensors_of(batch))

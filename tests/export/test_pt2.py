"""A compiled file gives the scores of the model."""

import numpy as np
import pytest
import torch
from graph_cases import arrays_of, scored, session_of
from model_inputs import history_spec, spec_of

from clickwise.export.pt2_file import write_pt2
from clickwise.serve.inputs import tensors

FLAT = spec_of(2, [30, 9], [None, 3])
SETTINGS = dict(embedding_dim=4, bottom_mlp=[8], cross_rank=2, top_mlp=[8])
HISTORY = history_spec([9], [9999, 5], [9999, 5], gaps=[6], length=4, beside=spec_of(2, [11], [3]))


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "name", "settings", "rows"), [
    (FLAT, "dcnv2", SETTINGS, None),
    (FLAT, "dcnv2", SETTINGS, "int8"),
    (HISTORY, "dien", dict(embedding_dim=4, top_mlp=[8], gru_size=6), None)])
def test_a_compiled_file_gives_the_scores_of_the_model(spec, name, settings, rows, tmp_path):
    session = session_of(spec, name, **settings)
    inputs = write_pt2(session, tmp_path / "model.pt2", rows=rows)
    run = torch._inductor.aoti_load_package(str(tmp_path / "model.pt2"))
    for samples in (1, 2, 7, 64):
        arrays = arrays_of(spec, samples, seed=samples)
        with torch.inference_mode():
            logit_B, probability_B = run(*map(torch.from_numpy, tensors(inputs, arrays, samples).values()))
        expected = scored(session, arrays, samples)
        atol = 1e-6 if rows is None else 0.01
        np.testing.assert_allclose(probability_B.numpy(), expected["probability"], rtol=0, atol=atol)
        assert logit_B.shape == (samples,)

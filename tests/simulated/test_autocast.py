"""Which dtype operators get."""

import torch


def test_operators_change_their_dtype_as_on_cuda():
    layer = torch.nn.Linear(4, 4).to("sim")
    x = torch.ones(2, 4, device="sim")
    with torch.autocast("sim", dtype=torch.bfloat16):
        low = layer(x)
        assert low.dtype == torch.bfloat16
        assert torch.softmax(low, -1).dtype == torch.float32
        assert torch.cat([low, x]).dtype == torch.float32
        assert torch.relu(low).dtype == torch.bfloat16
        assert layer(x.double().float()).dtype == torch.bfloat16
        with torch.autocast("sim", enabled=False):
            assert layer(x).dtype == torch.float32
    assert layer(x).dtype == torch.float32

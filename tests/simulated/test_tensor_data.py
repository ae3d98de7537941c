"""Parameters move between the CPU and the device and stay the same objects."""

import torch


def test_a_parameter_moves_by_its_data():
    parameter = torch.nn.Parameter(torch.ones(2))
    on_cpu = parameter.data
    parameter.data = on_cpu.to("sim")
    assert (type(parameter), parameter.device, parameter.requires_grad) == (
        torch.nn.Parameter,
        torch.device("sim:0"),
        True,
    )
    parameter.data = on_cpu
    assert parameter.tolist() == [1, 1]


def test_data_of_the_same_device_is_left_to_torch():
    parameter = torch.nn.Parameter(torch.ones(2, device="sim"))
    parameter.data = torch.zeros(3, device="sim")
    assert parameter.tolist() == [0, 0, 0]

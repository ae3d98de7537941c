"""With which releases of torch the device works."""

import pytest
import torch

from bench.simulated.settings import SimulationError
from bench.simulated.support import check_torch


@pytest.mark.parametrize("version", ["2.9.0", "2.9.1+cu128", "1.13.1"])
def test_older_releases_are_refused(version):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "__version__", version)
        with pytest.raises(SimulationError, match=r"needs torch 2\.10 or newer; this is .*\.$"):
            check_torch()


def test_a_release_that_lost_what_is_needed_is_refused():
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(torch._C, "_from_dlpack")
        with pytest.raises(SimulationError, match=r"needs torch\._C\._from_dlpack, which torch .* lacks\.$"):
            check_torch()


def test_a_second_device_of_this_kind_is_refused():
    with pytest.raises(SimulationError, match=r"torch has the device sim where"):
        check_torch()

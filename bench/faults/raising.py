"""Faults that raise an exception, or make an expected one disappear."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Apply, Fault, Patch, issue, pull, wrapped
from bench.faults.guidance import asking
from bench.faults.loading import class_method
from bench.faults.noise import drawing
from bench.faults.schedulers import DPM, UNIPC, WITH_KARRAS

AREA = "raising"


def _raises_if(error: Exception, condition: Any = lambda self, *args, **kwargs: True) -> Any:
    def make(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if condition(self, *args, **kwargs):
                raise error
            return original(self, *args, **kwargs)

        return method

    return make


def _text_model_is_back(patch: Patch) -> None:
    from transformers import CLIPTextModel

    patch.setattr(CLIPTextModel, "text_model", property(lambda self: self), raising=False)


def _not_loaded(error: Exception) -> Apply:
    def apply(patch: Patch) -> None:
        from transformers import CLIPTextModel

        def make(_original: Any) -> Any:
            def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
                raise error

            return from_pretrained

        class_method(patch, CLIPTextModel, "from_pretrained", make)

    return apply


def _noise_in_float32(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    return draw(shape, generator, **{**kwargs, "dtype": torch.float32})


def _third_order_in_half(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> bool:
    return self.config.solver_order == 3 and self.model_outputs[-1].dtype != torch.float32


def _third_order_sde(self: Any, *args: Any, **kwargs: Any) -> bool:
    return self.config.algorithm_type == "sde-dpmsolver++"


FAULTS = (
    Fault(
        "clip-skip-works",
        AREA,
        "clip_skip, which raises since transformers 5.6, works.",
        pull(14043),
        _text_model_is_back,
    ),
    Fault(
        "clip-skip-ignored",
        AREA,
        "clip_skip is ignored, so it does not raise.",
        issue(14124),
        asking(lambda arguments: arguments | {"clip_skip": None}),
    ),
    Fault(
        "loading-raises",
        AREA,
        "No text encoder can be loaded: an argument is unknown.",
        issue(12436),
        _not_loaded(TypeError("CLIPTextModel.__init__() got an unexpected keyword argument 'offload_state_dict'")),
        at_load=True,
    ),
    Fault(
        "exponential-sigmas-raise",
        AREA,
        "use_exponential_sigmas raises.",
        pull(9954),
        wrapped(
            WITH_KARRAS,
            "_convert_to_exponential",
            _raises_if(TypeError("unsupported operand type(s) for -: 'NoneType' and 'float'")),
        ),
    ),
    Fault(
        "beta-sigmas-raise",
        AREA,
        "use_beta_sigmas raises.",
        pull(9954),
        wrapped(WITH_KARRAS, "_convert_to_beta", _raises_if(NameError("name 'log_sigmas' is not defined"))),
    ),
    Fault(
        "karras-sigmas-raise",
        AREA,
        "use_karras_sigmas raises with UniPC.",
        pull(4581),
        wrapped(
            UNIPC,
            "_convert_to_karras",
            _raises_if(AttributeError("'numpy.float64' object has no attribute 'to'")),
        ),
    ),
    Fault(
        "sde-of-order-3-raises",
        AREA,
        "DPM++ SDE of order 3 raises.",
        pull(9104),
        wrapped(
            DPM,
            "multistep_dpm_solver_third_order_update",
            _raises_if(UnboundLocalError("cannot access local variable 'x_t'"), _third_order_sde),
        ),
    ),
    Fault(
        "unipc-of-order-3-raises-in-half",
        AREA,
        "UniPC of order 3 raises in half precision.",
        pull(7532),
        wrapped(
            UNIPC,
            "multistep_uni_p_bh_update",
            _raises_if(RuntimeError("expected m1 and m2 to have the same dtype"), _third_order_in_half),
        ),
    ),
    Fault(
        "float32-noise-in-half",
        AREA,
        "Noise is float32, whatever the model's dtype, so convolutions raise.",
        pull(9222),
        drawing(_noise_in_float32),
    ),
    Fault(
        "ancestral-generators-raise",
        AREA,
        "Euler ancestral does not accept one generator per image.",
        pull(5305),
        wrapped(
            "EulerAncestralDiscreteScheduler",
            "step",
            _raises_if(
                TypeError("iteration over a 0-d tensor"),
                lambda self, *args, **kwargs: isinstance(kwargs.get("generator"), list),
            ),
        ),
    ),
)

"""The settings of schedulers that are run: Cartesian products of options, each with a stable name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.proofs.closed_form.networks import ARC, EDM, FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One scheduler with one choice of options.

    Attributes:
        family: what its network expects, a constant of ``bench.proofs.closed_form.networks``.
        options: keywords of the constructor, step options apart.
        step_options: keywords of ``step``.
        dtype: of the samples and of the network's output.
        chosen: what this setting has beyond the plain one, for its id.
    """

    class_name: str
    family: str
    steps: int
    options: Options
    step_options: Options = field(default_factory=dict)
    dtype: str = "float32"
    chosen: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """``DDIM s7 timestep_spacing=trailing eta=1.0``: unique, and stable as long as the setting is the same."""
        return " ".join([self.class_name.removesuffix("Scheduler"), f"s{self.steps}", *self.chosen])


@dataclass(frozen=True)
class Sweep:
    """All combinations of some axes for one scheduler.

    Attributes:
        fixed: constructor options of every setting, not named in ids.
        axes: each a sequence of option groups; ``{}`` leaves the scheduler's defaults, ``dtype`` is the samples'.
        step_axes: the same for keywords of ``step``.
    """

    class_name: str
    family: str
    steps: Sequence[int]
    fixed: Options = field(default_factory=dict)
    axes: Sequence[Sequence[Options]] = ()
    step_axes: Sequence[Sequence[Options]] = ()

    def settings(self) -> Iterator[Setting]:
        groups = itertools.product(itertools.product(*self.axes), itertools.product(*self.step_axes))
        for steps, (options_chosen, step_chosen) in itertools.product(self.steps, list(groups)):
            constructor, step_options = _merged(options_chosen), _merged(step_chosen)
            named = [_label(key, value) for key, value in (constructor | step_options).items()]
            dtype = constructor.pop("dtype", "float32")
            options = {**self.fixed, **constructor}
            yield Setting(self.class_name, self.family, steps, options, step_options, dtype, tuple(named))


def _merged(groups: Sequence[Options]) -> dict[str, Any]:
    return {key: value for group in groups for key, value in group.items()}


def _label(key: str, value: Any) -> str:
    return key if value is True else f"{key}={value}"


def axis(key: str, *values: Any) -> list[Options]:
    """The default and these values of one option."""
    return [{}, *({key: value} for value in values)]


# The schedule of Stable Diffusion 1.x.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD = {**BETAS, "steps_offset": 1}
UNCLIPPED = {**SD, "clip_sample": False}
SPACINGS = [{"timestep_spacing": name} for name in ("leading", "trailing", "linspace")]
PREDICTIONS = axis("prediction_type", "v_prediction", "sample")
SIGMAS: list[Options] = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
LU: list[Options] = [*SIGMAS, {"use_lu_lambdas": True}]
COSINE: Options = {"beta_schedule": "squaredcos_cap_v2"}
LINEAR: Options = {"beta_schedule": "linear"}
ZERO_SNR: Options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
HALF: list[Options] = [{"dtype": "bfloat16"}, {"dtype": "float16"}]
ORDERS: list[Options] = [{"solver_order": order} for order in (1, 2, 3)]
FLOW_SIGMAS: Options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def _denoising_family() -> Iterator[Sweep]:
    """DDPM, DDIM, PNDM and what is distilled from them."""
    vp = VARIANCE_PRESERVING
    etas = axis("eta", 1.0)
    yield Sweep("DDIMScheduler", vp, (1, 4, 7, 20), UNCLIPPED, [SPACINGS, PREDICTIONS], [etas])
    yield Sweep("DDIMScheduler", vp, (4, 7), UNCLIPPED, [SPACINGS, [ZERO_SNR], [{}, LINEAR, COSINE]])
    yield Sweep("DDIMScheduler", vp, (1, 7), SD, [[{"set_alpha_to_one": False}], axis("thresholding", True)], [etas])
    yield Sweep("DDIMScheduler", vp, (5,), UNCLIPPED, [HALF, axis("timestep_spacing", "trailing")], [etas])
    yield Sweep("DDIMScheduler", vp, (1000,), UNCLIPPED)
    for name in ("DDIMParallelScheduler", "CogVideoXDDIMScheduler"):
        yield Sweep(name, vp, (4, 7), UNCLIPPED, [SPACINGS, PREDICTIONS])
    variances = axis("variance_type", "fixed_large", "fixed_small_log")
    yield Sweep("DDPMScheduler", vp, (1, 4, 7, 20), UNCLIPPED, [SPACINGS, PREDICTIONS])
    yield Sweep("DDPMScheduler", vp, (7, 10), UNCLIPPED, [SPACINGS, variances])
    yield Sweep("DDPMScheduler", vp, (4, 7), UNCLIPPED, [SPACINGS, [ZERO_SNR], [{}, LINEAR, COSINE]])
    yield Sweep("DDPMScheduler", vp, (7,), SD, [axis("thresholding", True), axis("clip_sample_range", 2.0)])
    yield Sweep("DDPMScheduler", vp, (5,), UNCLIPPED, [HALF])
    yield Sweep("DDPMParallelScheduler", vp, (4, 7), UNCLIPPED, [SPACINGS])
    runge_kutta = axis("skip_prk_steps", True)
    predicted = axis("prediction_type", "v_prediction")
    yield Sweep("PNDMScheduler", vp, (1, 4, 7, 20), SD, [SPACINGS, runge_kutta, predicted])
    yield Sweep("PNDMScheduler", vp, (5,), {**SD, "skip_prk_steps": True}, [HALF])
    yield Sweep("IPNDMScheduler", ARC, (1, 4, 7, 20))
    for name in ("LCMScheduler", "TCDScheduler"):
        yield Sweep(name, vp, (1, 2, 4, 7), BETAS, [PREDICTIONS, axis("original_inference_steps", 100)])
        yield Sweep(name, vp, (2, 4), BETAS, [[ZERO_SNR, {"timestep_scaling": 1.0}, {"clip_sample": True}, *HALF]])
    yield Sweep("TCDScheduler", vp, (1, 2, 4, 7), BETAS, [], [[{"eta": 0.0}, {"eta": 1.0}]])


def _exploding_family() -> Iterator[Sweep]:
    """Samplers in the space of Karras et al. 2022, where samples are data plus sigma times noise."""
    ve = VARIANCE_EXPLODING
    for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        yield Sweep(name, ve, (1, 4, 7, 20), SD, [SPACINGS, SIGMAS])
        yield Sweep(name, ve, (4, 7), SD, [PREDICTIONS[1:], SIGMAS])
        yield Sweep(name, ve, (4, 7), SD, [[COSINE, LINEAR], SIGMAS])
        yield Sweep(name, ve, (5,), SD, [HALF, SIGMAS[:2]])
    euler = "EulerDiscreteScheduler"
    yield Sweep(euler, ve, (4, 7), SD, [[ZERO_SNR], SPACINGS])
    yield Sweep(euler, ve, (1, 7), SD, [axis("final_sigmas_type", "sigma_min"), SIGMAS])
    yield Sweep(euler, ve, (4, 7), SD, [axis("interpolation_type", "log_linear"), SPACINGS])
    yield Sweep(euler, ve, (7,), SD, [SIGMAS[:2]], [[{"s_churn": 5.0}, {"s_churn": 5.0, "s_noise": 1.1}]])
    ancestral = "EulerAncestralDiscreteScheduler"
    yield Sweep(ancestral, ve, (1, 4, 7, 20), SD, [SPACINGS, PREDICTIONS[:2]])
    yield Sweep(ancestral, ve, (4, 7), SD, [[ZERO_SNR, COSINE, LINEAR, *HALF]])
    for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"):  # 0.15 s each to construct
        yield Sweep(name, ve, (1, 7), SD, [SIGMAS])
        yield Sweep(name, ve, (4,), SD, [SPACINGS])
        yield Sweep(name, ve, (4,), SD, [[{"prediction_type": "v_prediction"}, COSINE, *HALF]])
    yield Sweep("LMSDiscreteScheduler", ve, (1, 4, 7), SD, [SPACINGS, SIGMAS])
    yield Sweep("LMSDiscreteScheduler", ve, (4, 7), SD, [[*PREDICTIONS[1:], COSINE, *HALF]])
    schedules = axis("sigma_schedule", "exponential")
    last = axis("final_sigmas_type", "sigma_min")
    yield Sweep("EDMEulerScheduler", EDM, (1, 2, 7), {}, [schedules, last, axis("prediction_type", "v_prediction")])
    yield Sweep("EDMEulerScheduler", EDM, (7,), {}, [], [[{"s_churn": 5.0}]])
    edm = "EDMDPMSolverMultistepScheduler"
    yield Sweep(edm, EDM, (1, 2, 7, 20), {}, [ORDERS, schedules, last])
    yield Sweep(edm, EDM, (7,), {}, [ORDERS, [{"algorithm_type": "sde-dpmsolver++"}, {"solver_type": "heun"}]])


def _exponential_integrators() -> Iterator[Sweep]:
    """DPM-Solver, DPM-Solver++, UniPC, DEIS and SA-Solver."""
    vp = VARIANCE_PRESERVING
    multistep, singlestep = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
    unipc, deis, sa = "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"
    last: Options = {"final_sigmas_type": "sigma_min"}
    algorithms: list[Options] = [{}, {"algorithm_type": "sde-dpmsolver++"}, {"algorithm_type": "dpmsolver", **last}]
    yield Sweep(multistep, vp, (4, 7, 20), SD, [ORDERS, algorithms, axis("solver_type", "heun")])
    yield Sweep(multistep, vp, (7,), SD, [ORDERS, [{"algorithm_type": "sde-dpmsolver", **last}]])
    yield Sweep(multistep, vp, (1, 4, 7, 20), SD, [LU, [{}, last]])
    yield Sweep(multistep, vp, (1, 4, 7, 20), SD, [[COSINE], LU])
    yield Sweep(multistep, vp, (4, 7), SD, [SPACINGS, PREDICTIONS])
    yield Sweep(multistep, vp, (4, 7), SD, [[ZERO_SNR], SPACINGS])
    yield Sweep(
        multistep, vp, (5, 20), SD, [ORDERS[1:], axis("lower_order_final", False), axis("euler_at_final", True)]
    )
    yield Sweep(multistep, vp, (7,), SD, [[COSINE], [{"lambda_min_clipped": -5.1}], LU])
    yield Sweep(multistep, vp, (5,), SD, [HALF, LU[:2], algorithms[:2]])
    yield Sweep(multistep, vp, (7,), SD, [[{"thresholding": True}], ORDERS])
    yield Sweep(multistep, vp, (4, 7), {}, [[FLOW_SIGMAS], axis("flow_shift", 3.0), ORDERS])
    ordered = axis("lower_order_final", True)
    yield Sweep(singlestep, vp, (4, 7, 20), BETAS, [ORDERS, algorithms, ordered])
    yield Sweep(singlestep, vp, (1, 4, 7), BETAS, [ordered[1:], SIGMAS, [{}, last]])
    yield Sweep(singlestep, vp, (4, 7), BETAS, [ordered[1:], [*PREDICTIONS[1:], {"solver_type": "heun"}, *HALF]])
    yield Sweep(singlestep, vp, (4, 7), BETAS, [ordered[1:], [COSINE], SIGMAS])
    yield Sweep(unipc, vp, (4, 7, 20), SD, [ORDERS, axis("solver_type", "bh1"), axis("predict_x0", False)])
    yield Sweep(unipc, vp, (1, 4, 7), SD, [SIGMAS, [{}, last]])
    yield Sweep(unipc, vp, (4, 7), SD, [SPACINGS, PREDICTIONS])
    yield Sweep(unipc, vp, (7,), SD, [ORDERS, [{"lower_order_final": False}, {"thresholding": True}]])
    yield Sweep(unipc, vp, (4, 7), SD, [[COSINE, ZERO_SNR], SIGMAS])
    yield Sweep(unipc, vp, (5,), SD, [HALF, ORDERS])
    yield Sweep(unipc, vp, (4, 7), {}, [[FLOW_SIGMAS], axis("flow_shift", 3.0), ORDERS])
    yield Sweep(deis, vp, (4, 7, 20), SD, [ORDERS, SIGMAS])
    yield Sweep(deis, vp, (4, 7), SD, [SPACINGS, PREDICTIONS])
    yield Sweep(deis, vp, (4, 7), SD, [[COSINE, {"lower_order_final": False}, *HALF]])
    yield Sweep(sa, vp, (4, 7), SD, [SIGMAS, axis("algorithm_type", "noise_prediction")])
    yield Sweep(sa, vp, (7,), SD, [[{"predictor_order": 1, "corrector_order": 1}, {"predictor_order": 3}], PREDICTIONS])


def _flow_family() -> Iterator[Sweep]:
    """Straight paths between data and noise."""
    shifts = axis("shift", 3.0)
    yield Sweep("FlowMatchEulerDiscreteScheduler", FLOW, (1, 4, 7, 20), {}, [shifts, SIGMAS])
    yield Sweep("FlowMatchEulerDiscreteScheduler", FLOW, (4,), {}, [[{"shift_terminal": 0.02}, *HALF]])
    yield Sweep("FlowMatchEulerDiscreteScheduler", FLOW, (7,), {}, [[{"stochastic_sampling": True}], shifts])
    yield Sweep("FlowMatchHeunDiscreteScheduler", FLOW, (1, 4, 7, 20), {}, [shifts])
    yield Sweep("FlowMatchLCMScheduler", FLOW, (1, 4, 7), {}, [shifts])


def all_settings() -> dict[str, Setting]:
    """Every setting under its id, in the order of declaration.

    Raises:
        ValueError: two different settings have one id.
    """
    found: dict[str, Setting] = {}
    families = (_denoising_family(), _exploding_family(), _exponential_integrators(), _flow_family())
    for sweep in itertools.chain(*families):
        for setting in sweep.settings():
            if found.setdefault(setting.id, setting) != setting:
                raise ValueError(f"two settings are called '{setting.id}'")
    return found

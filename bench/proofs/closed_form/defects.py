"""Defects of diffusers that the closed form finds, each with what shows it.

Each is a strict expected failure: its test fails when a release fixes the defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

NO_ISSUE = "no issue known"
_PREVIOUS = "issues 11347 and 12633"


@dataclass(frozen=True)
class Defect:
    """One defect.

    Attributes:
        what: in one sentence.
        issue: upstream's number, or ``NO_ISSUE``.
        methods: ids in ``truth.METHODS`` whose order falls short.
        samplers: ids in ``moments.SAMPLERS`` whose order falls short.
        settings: patterns of setting ids that raise, or whose result is not finite.
    """

    what: str
    issue: str
    methods: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        return f"{self.what} ({self.issue})"

    def covers(self, setting: str) -> bool:
        return any(fnmatchcase(setting, pattern) for pattern in self.settings)


DEFECTS = {
    "ddim-previous-timestep": Defect(
        "DDIM steps to t - 1000 // steps, which is not the next timestep with linspace and trailing spacing",
        _PREVIOUS,
        methods=("DDIM timestep_spacing=trailing", "DDIM timestep_spacing=linspace"),
        samplers=("DDIM timestep_spacing=trailing eta=1.0", "DDIM timestep_spacing=linspace eta=1.0"),
    ),
    "pndm-previous-timestep": Defect(
        "PNDM steps to t - 1000 // steps too, with linspace and trailing spacing",
        NO_ISSUE,
        methods=("PNDM timestep_spacing=trailing", "PNDM timestep_spacing=linspace"),
    ),
    "pndm-v-prediction": Defect(
        "PNDM combines the history of v and turns it into noise with the present sample only: order 1 and not 2",
        NO_ISSUE,
        methods=("PNDM prediction_type=v_prediction",),
    ),
    "truncated-timesteps": Defect(
        "timesteps of exponential sigmas are cut off to integers, not rounded: half a timestep too early on average",
        "pull request 13768, closed",
        methods=("DPMSolverMultistep use_exponential_sigmas=True", "UniPCMultistep use_exponential_sigmas=True"),
    ),
    "rounded-timesteps": Defect(
        "timesteps of Karras sigmas are rounded to integers, which leaves an error that no number of steps removes",
        NO_ISSUE,
        methods=("UniPCMultistep use_karras_sigmas=True",),
    ),
    "deis-order-3": Defect(
        "coefficients of order 3 are differences of nearly equal float32 numbers: more steps make the error larger",
        NO_ISSUE,
        methods=("DEISMultistep solver_order=3",),
    ),
    "ipndm-first-step": Defect(
        "the first step starts at alpha 0 and drops what the network says about the data: order 1",
        NO_ISSUE,
        methods=("IPNDM",),
    ),
    "sde-order-3": Defect(
        "sde-dpmsolver++ of order 3 has order 1, and is further off than order 2",
        NO_ISSUE,
        samplers=("DPMSolverMultistep algorithm_type=sde-dpmsolver++ solver_order=3",),
    ),
    "cosine-duplicate-timesteps": Defect(
        "cosine betas with Karras, exponential or beta sigmas give equal timesteps, and the step counter runs away",
        "issue 12771",
        settings=(
            "DPMSolverMultistep s[47] beta_schedule=squaredcos_cap_v2 use_karras_sigmas",
            "DPMSolverMultistep s20 beta_schedule=squaredcos_cap_v2 use_karras_sigmas",
            "DPMSolverMultistep s7 beta_schedule=squaredcos_cap_v2 lambda_min_clipped=-5.1 use_[kb]*_sigmas",
            "DPMSolverMultistep s7 beta_schedule=squaredcos_cap_v2 *use_exponential_sigmas",
            "DPMSolverMultistep s20 beta_schedule=squaredcos_cap_v2 use_exponential_sigmas",
            "DPMSolverMultistep s[47] beta_schedule=squaredcos_cap_v2 use_beta_sigmas",
            "DPMSolverMultistep s20 beta_schedule=squaredcos_cap_v2 use_beta_sigmas",
        ),
    ),
    "duplicate-timesteps-elsewhere": Defect(
        "the same in DPM++ singlestep and UniPC, there also with zero terminal signal",
        NO_ISSUE,
        settings=(
            "DPMSolverSinglestep s7 lower_order_final beta_schedule=squaredcos_cap_v2 use_*_sigmas",
            "DPMSolverSinglestep s4 lower_order_final beta_schedule=squaredcos_cap_v2 use_beta_sigmas",
            "UniPCMultistep s7 beta_schedule=squaredcos_cap_v2 use_*_sigmas",
            "UniPCMultistep s4 beta_schedule=squaredcos_cap_v2 use_beta_sigmas",
            "UniPCMultistep s[47] rescale_betas_zero_snr prediction_type=v_prediction use_beta_sigmas",
        ),
    ),
    "unipc-last-step": Defect(
        "UniPC with bh1, predict_x0=False or lower_order_final=False: the last step to sigma 0 has no finite result",
        NO_ISSUE,
        settings=(
            "UniPCMultistep s* solver_order=? *solver_type=bh1*",
            "UniPCMultistep s* solver_order=? predict_x0=False",
            "UniPCMultistep s7 solver_order=[23] lower_order_final=False",
        ),
    ),
    "edm-empty-last-step": Defect(
        "EDM DPM++ of order 3 with sigma_min gives NaN from 15 steps on: its last step has no length",
        NO_ISSUE,
        settings=("EDMDPMSolverMultistep s20 solver_order=3 *final_sigmas_type=sigma_min",),
    ),
    "edm-sde-order-3": Defect(
        "EDM DPM++ has no third order of sde-dpmsolver++ and raises UnboundLocalError",
        NO_ISSUE,
        settings=("EDMDPMSolverMultistep s7 solver_order=3 algorithm_type=sde-dpmsolver++",),
    ),
    "sde-dpmsolver-order-3": Defect(
        "DPM++ multistep has no third order of sde-dpmsolver and raises UnboundLocalError",
        NO_ISSUE,
        settings=("DPMSolverMultistep s7 solver_order=3 algorithm_type=sde-dpmsolver final_sigmas_type=sigma_min",),
    ),
    "ancestral-cosine": Defect(
        "cosine betas start at sigma 2e4, where the ancestral split takes the root of a negative number",
        NO_ISSUE,
        settings=(
            "EulerAncestralDiscrete s4 beta_schedule=squaredcos_cap_v2",
            "KDPM2AncestralDiscrete s4 beta_schedule=squaredcos_cap_v2",
        ),
    ),
    "pndm-one-step": Defect(
        "one step of PNDM with Runge-Kutta start raises ValueError",
        NO_ISSUE,
        settings=tuple(
            f"PNDM s1 timestep_spacing={spacing}{prediction}"
            for spacing in ("leading", "trailing", "linspace")
            for prediction in ("", " prediction_type=v_prediction")
        ),
    ),
    "ddim-1000-steps": Defect(
        "1000 steps with an offset of 1 ask for timestep 1000, which is one too many",
        "issue 10003",
        settings=("DDIM s1000",),
    ),
}

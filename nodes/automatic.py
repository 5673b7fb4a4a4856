"""What follows from the version of the control net where a setting stands on automatic, and the
report that says what was taken and what is doubtful."""

from dataclasses import dataclass

from ..bir_core.checkpoints.loading import origin_of
from ..bir_core.checkpoints.origin import Origin
from ..bir_core.diffbir.settings import official_settings
from ..bir_core.diffbir.versions import DEFAULT_VERSION, find_version
from ..bir_core.diffbir.which_version import versions_of_file, versions_predicting
from ..bir_core.diffusion.denoisers import Parameterization
from ..bir_core.diffusion.sampling import SAMPLERS
from ..bir_core.diffusion.schedules import SchedulePlan
from ..bir_core.errors import BIRError
from .host import base
from .host.control import IRControlNet, require_ours
from .host.protocols import ControlNet, Model

AUTOMATIC = "automatic"
AS_CONNECTED = "as connected"
BY_NAME = "by the file name"
# Entries of the loader that name several versions; a file's name may say which of them.
TRAINED_ON = {"v1, v2 (eps)": ("v1", "v2"), "v2.1 (zero-SNR v)": ("v2.1",)}
# The schedules of the official code, on the model's own noise levels.
SCHEDULES: tuple[SchedulePlan, ...] = ("spaced", "edm")
# ComfyUI's names of the official samplers, where they are others.
STOCK_SAMPLERS = {"spaced": "ddpm"}
UNKNOWN = (
    "Doubtful: neither the control net's file, by its name or header, nor trained_on in Load "
    "DiffBIR ControlNet says which version of DiffBIR it is"
)


@dataclass(frozen=True)
class Sampling:
    """What is sampled with.

    Attributes:
        model: set to the base that the version wants, unless that is left as connected.
        report: what was taken, and what is doubtful, a line each.
    """

    model: Model
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    report: str


def likely_version(path: str) -> str:
    """The version of the IRControlNet in a file, or the newest of those that it may be of."""
    return versions_of_file(origin_of(path, "ir_controlnet"))[-1]


def version_of_choice(trained_on: str, origin: Origin) -> str | None:
    """The version of a control net by what the loader is set to, and by its file; None if that
    does not even say the base."""
    possible = versions_of_file(origin)
    if trained_on == BY_NAME:
        settings = {base.setting_for(find_version(name)) for name in possible}
        return possible[-1] if len(settings) == 1 else None
    choices = TRAINED_ON.get(trained_on, (trained_on,))
    agreed = [name for name in choices if name in possible]
    return (agreed or choices)[-1]


@dataclass(frozen=True)
class SetBase:
    """A MODEL as a control net is used with it.

    Attributes:
        version: of DiffBIR that the settings follow, None if nothing tells it.
        report: what the model is set to, and what is doubtful about it.
    """

    model: Model
    version: str | None
    report: str


def set_base(model: Model, control_net: IRControlNet, sampling: str = AUTOMATIC) -> SetBase:
    """A MODEL set to what the control net was trained on, or as it is connected. What the file of
    the control net does not say follows from what the model's network predicts.

    Raises:
        BIRError: a model that the control net cannot steer, or with `AUTOMATIC` one that predicts
            something else than it was trained on.
    """
    base.require_base(model.model, control_net.config)
    predicts = base.predicts(model, control_net.config)
    version, by_model = control_net.version, ""
    if version is None and predicts is not None:
        version = versions_predicting(predicts)[-1]
        by_model = f" (the model predicts {predicts}, the control net's file says nothing)"
    if version is not None and sampling == AUTOMATIC:
        _require_prediction(version, predicts)
        model = base.set_to(model, find_version(version))
    connected = model.get_model_object("model_sampling")
    found = base.setting_of(connected)
    if version is None:
        report = f"{UNKNOWN}; the model is used as connected, {found}."
        return SetBase(model, base.version_set(connected), report)
    row = find_version(version)
    wanted = base.setting_for(row)
    if predicts not in (None, row.parameterization):
        report = f"Doubtful: DiffBIR {version} wants {wanted}, but the model predicts {predicts}."
        return SetBase(model, version, report)
    if found != wanted:
        report = f"Doubtful: DiffBIR {version} wants {wanted}, but the model has {found}."
        return SetBase(model, version, report)
    return SetBase(model, version, f"DiffBIR {version} on {found}{by_model}.")


def _require_prediction(version: str, predicts: Parameterization | None) -> None:
    wanted = find_version(version).parameterization
    if predicts not in (None, wanted):
        raise BIRError(
            f"DiffBIR {version} should have a base that predicts {wanted}, but this model predicts "
            f"{predicts}; {base.LOAD_BASE}, choose trained_on in Load DiffBIR ControlNet if the "
            "file is of another version, or set sampling to 'as connected'."
        )


def loaded(control_net: IRControlNet) -> str:
    """Which version a control net is taken for, as a report."""
    version = control_net.version
    return f"{UNKNOWN}." if version is None else f"IRControlNet of DiffBIR {version}."


def base_needed(control_net: IRControlNet) -> str:
    """What the model has to be set to that the control net is used with, as a report."""
    if control_net.version is None:
        return f"{UNKNOWN}; the model is used as connected."
    version = find_version(control_net.version)
    wanted = base.setting_for(version)
    return f"DiffBIR {control_net.version} wants {wanted}: {base.how_to_set(version)}."


def settled(
    model: Model,
    control_net: IRControlNet,
    *,
    sampling: str,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str,
) -> Sampling:
    """The settings of a sampling: those that stand on automatic (0 steps, a cfg below 0) as the
    authors have them.

    Raises:
        BIRError: something is on automatic, and neither the control net nor the model tells a
            version.
    """
    based = set_base(model, control_net, sampling)
    if AUTOMATIC in (sampler, scheduler) or steps == 0 or cfg < 0:
        if based.version is None:
            raise BIRError(
                "Settings on automatic should follow from the version of DiffBIR, but neither the "
                "control net nor the model tells it; choose trained_on in Load DiffBIR ControlNet."
            )
        official = official_settings(based.version)
        steps, cfg = steps or official.steps, official.cfg if cfg < 0 else cfg
        if sampler == AUTOMATIC:
            sampler = STOCK_SAMPLERS.get(official.sampler, official.sampler)
        if scheduler == AUTOMATIC:
            scheduler = schedule_of(sampler) or SAMPLERS[official.sampler].plan
    lines = [based.report, f"{steps} steps of {sampler}, scheduler {scheduler}, cfg {cfg:g}."]
    if scheduler == "spaced" and "sde" in sampler:
        lines.append(f"Doubtful: the authors let {sampler} walk down edm, not spaced.")
    if scheduler == "edm" and schedule_of(sampler) == "spaced":
        lines.append(f"Doubtful: the authors let {sampler} walk down spaced, not edm.")
    return Sampling(based.model, steps, cfg, sampler, scheduler, "\n".join(lines))


def schedule_of(sampler: str) -> str | None:
    """Which of `SCHEDULES` the official code gives a sampler of ComfyUI's, None if none of them."""
    plans = {STOCK_SAMPLERS.get(name, name): row.plan for name, row in SAMPLERS.items()}
    plan = plans.get(sampler)
    return plan if plan in SCHEDULES else None


def stage1_version(choice: str, control_net: ControlNet | None) -> tuple[str, str]:
    """The version whose order stage 1 follows, and a report.

    Raises:
        BIRError: another kind of control net.
    """
    known = None if control_net is None else require_ours(control_net).version
    if choice == AUTOMATIC:
        if known is not None:
            return known, f"Stage 1 of DiffBIR {known}."
        reason = f"{UNKNOWN}; " if control_net else "No control net is connected: "
        return DEFAULT_VERSION, f"{reason}stage 1 of DiffBIR {DEFAULT_VERSION} is taken."
    if known is not None and choice != known:
        return choice, f"Doubtful: stage 1 of DiffBIR {choice} for a control net of {known}."
    return choice, f"Stage 1 of DiffBIR {choice}."

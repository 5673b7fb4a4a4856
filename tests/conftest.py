"""Set-up shared by all tests."""

import importlib.util
import os
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported, here and in the processes that tests start: its threads should sleep
# while they wait. One that spins keeps a core from the thread that it waits for: where as many
# programs as cores are busy, small networks take five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402
from _pytest.terminal import TerminalReporter

# How long an example takes says more about what else the machine does than about the code. The
# same examples every time: a run fails for what was changed, not for a new example. Others are
# tried with `pytest --hypothesis-profile search`.
hypothesis.settings.register_profile("bir", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.load_profile("bir")


class _TorchRandom:
    """Torch's global generator, as Hypothesis asks for it: each example starts from one seed."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_TORCH_RANDOM = _TorchRandom()  # Hypothesis holds it weakly
hypothesis.register_random(_TORCH_RANDOM)


def _complete_torchvision() -> None:
    """Declare the two operators without which torchvision cannot be imported.

    A torchvision built for CUDA does not find its compiled operators beside a CPU torch. Nothing
    here calls them; spandrel only needs the import to succeed.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", arguments)
        torch.library.define("torchvision::qnms", arguments)


_complete_torchvision()


class _RootIsNoTestPackage:
    """Keeps pytest from importing the __init__.py of the root, which only ComfyUI can import."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(
        self, path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        is_root = path == Path(__file__).parents[1]
        return pytest.Dir.from_parent(parent, path=path) if is_root else None


def pytest_configure(config: pytest.Config) -> None:
    """Register what a conftest file cannot say about the folder above it."""
    config.pluginmanager.register(_RootIsNoTestPackage())


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """A test that draws without a seed draws the same, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def data_path() -> Path:
    """The folder of small numeric files, tests/data."""
    return Path(__file__).parent / "data"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last of all what was not run, and why; also when nothing was left out."""
    reporter: TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    reasons: dict[str, int] = {}
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected failure"
        reason = reason.removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    slow = len(reporter.stats.get("deselected", []))
    if slow:
        reasons["not selected (slow tests run with `pytest -m slow`)"] = slow
    if not reasons:
        reporter.write_line("Skipped: nothing.")
    for reason, count in reasons.items():
        reporter.write_line(f"Skipped: {count} x {reason}")

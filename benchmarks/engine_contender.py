"""One contender of `engine.py` in a process of its own: its threads and its allocator touch nobody else's.

    python benchmarks/engine_contender.py '{"contender": "eager", "model": "resnet18", "batch": 1, ...}'

Prints `ready SECONDS PATH` (how long it took to build and to answer first; where the answer is, saved by
torch), or `absent REASON`; then reads a number of calls per line and prints how many seconds they took.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from absent import AbsentError

from service.engine import allocator
from service.plan import openmp

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Task:
    """What is measured."""

    contender: str
    model: str
    batch: int
    precision: str
    cores: list[int]
    device: str

    @property
    def dtype(self) -> Any:
        """The precision as torch's."""
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.precision]

    def rows(self) -> Tensor:
        """Network inputs `[N, C, H, W]`, float32, the same for every contender."""
        import torch

        from service.network import catalog

        shape = catalog.input_shape(catalog.build(self.model, {}))
        return torch.randn(self.batch, *shape, generator=torch.Generator().manual_seed(1))

    def network(self) -> nn.Module:
        """The architecture with random weights and statistics, its norms ours."""
        import torch

        from service.network import catalog
        from service.network.random_stats import randomise

        torch.manual_seed(0)
        network = catalog.build(self.model, {})
        randomise(network, 0)
        return network

    def eager_network(self) -> nn.Module:
        """The same with torch's own norms: the fused kernel that people run today, not our definition."""
        from torch import nn

        from service.network.adopt import norms

        network = self.network()
        for name, norm in norms(network).items():
            kind = getattr(nn, type(norm).__name__)
            theirs = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
            theirs.load_state_dict(norm.state_dict())
            network.set_submodule(name, theirs)
        return network.eval().to(self.device)


def eager(task: Task) -> Run:
    """As the network comes: PyTorch, unfolded, contiguous."""
    network, rows = task.eager_network().to(task.dtype), task.rows().to(task.dtype)
    return lambda: network(rows.to(task.device))


def channels_last(task: Task) -> Run:
    """Unfolded PyTorch in the layout that convolutions want; on CUDA under autocast."""
    import torch

    network = task.eager_network().to(memory_format=torch.channels_last)
    rows = task.rows().contiguous(memory_format=torch.channels_last)
    if task.device == "cpu":
        network, rows = network.to(task.dtype), rows.to(task.dtype)
        return lambda: network(rows)

    def run() -> Tensor:
        with torch.autocast("cuda", task.dtype, enabled=task.dtype != torch.float32):
            answer: Tensor = network(rows.to(task.device))
        return answer

    return run


def fx_fuse(task: Task) -> Run:
    """`torch.fx.experimental.optimization.fuse`, channels-last."""
    import torch
    from torch.fx.experimental.optimization import fuse

    network = fuse(task.eager_network()).to(task.dtype).to(memory_format=torch.channels_last)
    rows = task.rows().to(task.dtype).contiguous(memory_format=torch.channels_last)
    return lambda: network(rows.to(task.device))


def compiled(task: Task, mode: str | None = None) -> Run:
    """`torch.compile`, on the CPU with freezing, which folds the norms and packs the weights."""
    import torch

    if task.device == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise AbsentError("torch.compile needs a C++ compiler, and there is none")
    torch._inductor.config.freezing = task.device == "cpu"
    network = task.eager_network().to(task.dtype).to(memory_format=torch.channels_last)
    rows = task.rows().to(task.dtype).contiguous(memory_format=torch.channels_last)
    function = torch.compile(network, mode=mode)
    return lambda: function(rows.to(task.device))


def onnx_runtime(task: Task) -> Run:
    """ONNX Runtime with all its graph optimisations."""
    onnxruntime = _imported("onnxruntime")
    if task.precision != "float32":
        raise AbsentError("ONNX Runtime has no convolution in bfloat16 on the CPU")
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = len(task.cores), 3
    session = onnxruntime.InferenceSession(_onnx(task), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: task.rows().numpy()}
    return lambda: torch.from_numpy(session.run(None, inputs)[0])


def openvino(task: Task) -> Run:
    """OpenVINO, compiled for latency."""
    library = _imported("openvino")
    import torch

    core = library.Core()
    settings = {
        "INFERENCE_NUM_THREADS": len(task.cores),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[task.precision],
    }
    request = core.compile_model(core.read_model(_onnx(task)), "CPU", settings).create_infer_request()
    inputs = {0: task.rows().numpy()}
    return lambda: torch.from_numpy(request.infer(inputs)[0].copy())


def foldserve(task: Task) -> Run:
    """Ours."""
    import torch

    from service.graph.capture import capture
    from service.graph.fold import fold_graph
    from service.graph.reference import Reference
    from service.plan import device
    from service.plan.plan import PRECISIONS, lower
    from service.plan.preprocessing import Preprocessing

    rows = task.rows()
    reference = Reference.of(capture(task.network(), torch.zeros(2, *rows.shape[1:])))
    plan = lower(
        fold_graph(reference, task.dtype).module,
        Preprocessing([0.0] * rows.shape[1], [1.0] * rows.shape[1]),
        precision=PRECISIONS[task.precision].dtype,
        device=device.choose(task.device),
        max_batch=task.batch,
    )
    return lambda: plan(rows)


ENGINES: dict[str, dict[str, Callable[[Task], Run]]] = {
    "cpu": {
        "eager": eager,
        "eager, channels-last": channels_last,
        "torch.fx fuse": fx_fuse,
        "torch.compile, freezing": compiled,
        "ONNX Runtime": onnx_runtime,
        "OpenVINO": openvino,
        "foldserve": foldserve,
    },
    "cuda": {
        "eager": eager,
        "eager, channels-last": channels_last,
        "torch.compile, reduce-overhead": lambda task: compiled(task, "reduce-overhead"),
        "torch.compile, max-autotune": lambda task: compiled(task, "max-autotune"),
        "foldserve": foldserve,
    },
}


def _imported(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise AbsentError(f"{name} is not installed (pip install 'foldserve[bench]')") from error


def _onnx(task: Task) -> bytes:
    _imported("onnx")
    import torch

    model = io.BytesIO()
    torch.onnx.export(task.eager_network(), (task.rows(),), model, dynamo=False)
    return model.getvalue()


def main() -> None:
    """Build the contender, then run as often as each line of the input says."""
    task = Task(**json.loads(sys.argv[1]))
    os.sched_setaffinity(0, task.cores)
    if task.contender == "foldserve":  # what `foldserve serve` does before torch is imported
        openmp.calm(os.environ)
        allocator.share_one_arena()
        allocator.keep()
    started = time.perf_counter()
    import torch

    torch.set_num_threads(len(task.cores))
    with torch.no_grad() if "compile" in task.contender else torch.inference_mode():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                run = ENGINES[task.device][task.contender](task)
                answer = run().float().cpu()
        except AbsentError as reason:
            print("absent", reason, flush=True)
            return
        with tempfile.NamedTemporaryFile(suffix=".pt", delete=False) as file:
            torch.save(answer, file)
        print("ready", time.perf_counter() - started, file.name, flush=True)
        # With one thread, CPU time: what else runs on the core then matters less.
        clock = time.process_time if len(task.cores) == 1 and task.device == "cpu" else time.perf_counter
        for line in sys.stdin:
            started = clock()
            for _ in range(int(line)):
                run().cpu()
            print(clock() - started, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()

"""BatchNorm, written out from its definition.

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift", 2015, https://arxiv.org/abs/1502.03167. For each channel, over every other axis:

    x_hat = (x - mean) / sqrt(var + eps)
    y     = weight * x_hat + bias             (weight is the paper's gamma, bias its beta)

In training, mean and var are those of the batch (var biased, divided by n), and the running
statistics move towards them (var unbiased, divided by n - 1):

    running = (1 - momentum) * running + momentum * batch

In evaluation, mean and var are the running statistics, and nothing changes.

The mutable state is the three buffers; only `_track` and `reset_running_stats` write them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.types import Device


_HALVES = (torch.float16, torch.bfloat16)


class BatchNorm(nn.Module):
    """Batch normalisation of `[N, C, ...]`, at least two axes, as in arXiv 1502.03167.

    Interchangeable with `torch.nn.BatchNorm1d`, `2d` and `3d`: the same constructor, results,
    refusals and state-dict keys.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, so that a constant channel is not divided by zero.
        momentum: weight of a new batch in the running statistics; None weighs all batches alike.
        affine: whether `weight` and `bias` are learned; without them y = x_hat.
        track_running_stats: whether running statistics are kept for evaluation; without them
            the batch's own are used there too.
        device: of the parameters and buffers.
        dtype: of the parameters and the running statistics.

    State: `weight`, `bias`, `running_mean`, `running_var`, each `[C]`, in the unit of the input
    (`running_var` in its square), and `num_batches_tracked`, a scalar int64.
    """

    _version = 2  # of the state dict, as torch counts it: 2 added num_batches_tracked
    _ranks: ClassVar[tuple[int, ...]] = ()  # accepted numbers of axes; empty means two or more

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def channels() -> Tensor:
            return torch.empty(num_features, device=device, dtype=dtype)

        count = torch.empty((), device=device, dtype=torch.long)
        self.register_parameter("weight", nn.Parameter(channels()) if affine else None)
        self.register_parameter("bias", nn.Parameter(channels()) if affine else None)
        self.register_buffer("running_mean", channels() if track_running_stats else None)
        self.register_buffer("running_var", channels() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", count if track_running_stats else None)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of `x`.

        Args:
            x: `[N, C, ...]` in the dtype of the layer, or in float16 or bfloat16 beside a float32
                layer; half precisions are computed in float32.

        Returns:
            y, in the shape, dtype and memory format of `x`.

        Raises:
            ValueError: a wrong rank or number of channels, a single value per channel where the
                batch's own statistics are needed, or an `eps` that divides by zero.
            TypeError: a dtype other than those above.
        """
        self._check(x)
        if torch.compiler.is_exporting() and (running := self._running_statistics()):
            # A captured graph has one node for a norm, not ten; a test holds it against the lines below.
            return self._as_one_node(x, *running)
        values = _cast(x, _arithmetic(x))  # [N, C, H, W]
        mean, var = self._statistics(values)  # [C, 1, 1] each
        x_hat = (values - mean) * torch.rsqrt(var + self.eps)  # [N, C, H, W]
        return _cast(self._scale_and_shift(x_hat), x.dtype)

    def _as_one_node(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        # `F.batch_norm` has this one operator, but before torch 2.12 refuses an eps of 0 in evaluation too.
        momentum = 0.0 if self.momentum is None else self.momentum  # as torch writes None down
        return torch.batch_norm(
            x,
            self.weight,
            self.bias,
            mean,
            var,
            training=False,
            momentum=momentum,
            eps=self.eps,
            cudnn_enabled=False,
        )

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if running := self._running_statistics():
            return _per_channel(running[0], x), _per_channel(running[1], x)
        mean = _channel_mean(x)
        var = _channel_mean((x - mean).square())  # E[x^2] - E[x]^2 would cancel where the mean is large
        if self.training and self.track_running_stats:
            self._track(mean, var, n=_values_per_channel(x))
        return mean, var

    def _running_statistics(self) -> tuple[Tensor, Tensor] | None:
        if self.training or self.running_mean is None or self.running_var is None:
            return None
        return self.running_mean, self.running_var

    def _scale_and_shift(self, x_hat: Tensor) -> Tensor:
        y = x_hat
        if self.weight is not None:
            y = _per_channel(self.weight, x_hat) * y
        if self.bias is not None:
            y = y + _per_channel(self.bias, x_hat)
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, n: int) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if n == 0 or self.running_mean is None or self.running_var is None:
            return  # an empty batch is counted, as torch counts it, but has no statistics
        momentum = self._momentum()
        _move(self.running_mean, mean, momentum)
        _move(self.running_var, var * (n / (n - 1)), momentum)

    def _momentum(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1 / int(self.num_batches_tracked)

    def _check(self, x: Tensor) -> None:
        if x.dim() < 2 or (self._ranks and x.dim() not in self._ranks):
            expected = " or ".join(f"{rank}D" for rank in self._ranks) or "at least 2D"
            raise ValueError(f"expected {expected} input (got {x.dim()}D input)")
        if x.shape[1] != self.num_features:
            raise ValueError(f"expected {self.num_features} channels (got {x.shape[1]} in {tuple(x.shape)})")
        if (self.running_mean is None) != (self.running_var is None):
            raise ValueError("running_mean and running_var must either both be None or neither be None")
        self._check_dtype(x)
        if self._running_statistics() is None:
            _check_batch(x, self.eps)
        elif self.eps < 0:
            raise ValueError(f"batch_norm eps must be non-negative, but got {self.eps}")

    def _check_dtype(self, x: Tensor) -> None:
        tensors = (self.weight, self.bias, self.running_mean, self.running_var)
        own = {tensor.dtype for tensor in tensors if tensor is not None}
        if not x.is_floating_point() or not own <= {x.dtype, _arithmetic(x)}:
            raise TypeError(f"expected floating-point input to match {own or 'nothing'} (got {x.dtype})")

    def reset_running_stats(self) -> None:
        """Forget every batch: mean 0, variance 1, no batch tracked."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.fill_(value)

    def reset_parameters(self) -> None:
        """Forget every batch and start from y = x_hat: weight 1, bias 0."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        count = self.num_batches_tracked
        if (local_metadata.get("version") or 1) < 2 and count is not None:
            # Checkpoints from before torch 0.4.1 have no count; the layer's own stands.
            state_dict.setdefault(f"{prefix}num_batches_tracked", torch.tensor(0) if count.is_meta else count)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class BatchNorm1d(BatchNorm):
    """`BatchNorm` of feature vectors `[N, C]` or of sequences `[N, C, L]`."""

    _ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` of images or feature maps, `[N, C, H, W]`."""

    _ranks = (4,)


class BatchNorm3d(BatchNorm):
    """`BatchNorm` of volumes or videos, `[N, C, D, H, W]`."""

    _ranks = (5,)


def _check_batch(x: Tensor, eps: float) -> None:
    if _values_per_channel(x) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
    if eps <= 0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")


def _values_per_channel(x: Tensor) -> int:
    return math.prod(x.shape[:1] + x.shape[2:])


def _channel_mean(x: Tensor) -> Tensor:
    return x.mean([axis for axis in range(x.dim()) if axis != 1], keepdim=True)  # [1, C, 1, 1]


def _per_channel(tensor: Tensor, x: Tensor) -> Tensor:
    return _cast(tensor, x.dtype).view(-1, *[1] * (x.dim() - 2))  # [C] to [C, 1, 1]


def _arithmetic(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in _HALVES else x.dtype  # halves are too coarse for sums


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # a no-op `to` would stay in a graph


def _move(running: Tensor, batch: Tensor, momentum: float) -> None:
    running.copy_((1 - momentum) * running.to(batch.dtype) + momentum * batch.flatten())

"""Thresholds: from where on a norm is flagged."""

from __future__ import annotations

from typing import NamedTuple


class Thresholds(NamedTuple):
    """The limits of the health flags; what each means, and why it is so, stands in docs/inspection.md."""

    constant_channel: float = 1e-3
    """A channel is constant whose weight is below this fraction of its layer's median weight."""
    gain: float = 20.0
    """A gain of more than so many times the layer's median is an outlier."""
    never_fires: float = 1e-3
    """A channel never fires whose output is positive with less than this probability."""
    never_fires_share: float = 0.25
    """More of a layer's channels than this fraction that never fire are worth a warning."""
    lost_weights: float = 0.01
    """More of a channel's folded weights than this fraction that become 0 are worth a warning."""

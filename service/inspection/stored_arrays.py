"""Stored arrays: what a file holds, before anything is computed with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


def sound(arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> list[np.ndarray]:
    """Those of these names; raises `ValueError` for one that is missing, of another dtype or not finite."""
    missing = [name for name in dtypes if name not in arrays]
    if missing:
        raise ValueError(f"it holds no baseline ({', '.join(missing)})")
    wrong = [name for name, dtype in dtypes.items() if not _is_sound(arrays[name], dtype)]
    if wrong:
        raise ValueError(f"it holds what is no baseline's number ({', '.join(wrong)})")
    return [arrays[name] for name in dtypes]


def _is_sound(array: np.ndarray, dtype: str) -> bool:
    return array.dtype == np.dtype(dtype) and bool(np.isfinite(array).all())

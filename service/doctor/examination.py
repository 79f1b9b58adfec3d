"""The examination: images of the user's own, shown to a network the way each variant would have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.calibration import gallery
from service.calibration.observed import Observed
from service.diagnosis.diagnosis import diagnose
from service.diagnosis.images import variant_rows
from service.errors import InvalidConfiguration, InvalidInput
from service.evaluation.batches import Unreadable, content_of
from service.inputs.decoding import decode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from service.diagnosis.diagnosis import Diagnosis
    from service.evaluation.pictures import Picture
    from service.settings import Settings
    from service.store.manifest import Input
    from service.store.model_store import StoredModel

AT_MOST = 32
"""Images, evenly spread over the folder."""


@dataclass(frozen=True)
class Examined:
    """What was found."""

    diagnosis: Diagnosis
    unreadable: tuple[Unreadable, ...]


def examine(
    stored: StoredModel,
    folder: Path,
    device: torch.device,
    settings: Settings,
    progress: Callable[[int, int | None], None] = lambda _done, _all: None,
) -> Examined:
    """Diagnose a version's preprocessing from the images of `folder`.

    Raises what loading the version raises, and `InvalidConfiguration` where no image can be read.
    """
    spec = stored.manifest.input
    contents, unreadable = _read(_spread(gallery.of(folder)), spec, settings)
    if not contents:
        raise InvalidConfiguration(f"none of the images in {folder.name!r} can be read")
    observed = Observed.of(stored, device)
    seen = []
    for variant, rows in variant_rows(spec, contents, settings.max_pixels):
        seen.append((variant, *observed.seen(rows)))
        progress(len(seen), None)
    return Examined(diagnose(observed.watched, seen, spec), tuple(unreadable))


def _spread(found: Sequence[Picture]) -> list[Picture]:
    count = min(AT_MOST, len(found))
    return [found[number * len(found) // count] for number in range(count)]


def _read(
    pictures: Sequence[Picture], spec: Input, settings: Settings
) -> tuple[list[bytes], list[Unreadable]]:
    """Those that serving would accept, and the others."""
    contents, unreadable = list[bytes](), list[Unreadable]()
    row = np.empty(spec.shape, np.uint8)
    for picture in pictures:
        try:
            content = content_of(picture, settings.max_body_bytes)
            decode_image(content, spec, settings.max_pixels, row)
            contents.append(content)
        except (InvalidInput, OSError) as error:
            unreadable.append(Unreadable.of(picture, error))
    return contents, unreadable

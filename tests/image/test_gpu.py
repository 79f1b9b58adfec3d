"""The image with torch's CUDA build computes on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import serving
from .container import NVIDIA
from .docker import DockerImage
from .test_running import DIGITS

if TYPE_CHECKING:
    from .conftest import Served
    from .container import Image

pytestmark = [pytest.mark.image, pytest.mark.gpu]

BUILD = "import torch; print(torch.version.cuda)"


@pytest.fixture
def cuda_image(image: Image, served: Served) -> Image:
    if not (isinstance(image, DockerImage) and NVIDIA.exists()):
        pytest.skip("only Docker, with NVIDIA's container toolkit, gives a container the host's driver")
    if served.container.run("python3", "-c", BUILD).stdout.strip() == "None":
        pytest.skip("the image has torch's CPU build")
    return image


def test_digits_are_recognised_on_the_gpu(cuda_image: Image) -> None:
    with serving(cuda_image, FOLDSERVE_DEVICE="cuda") as running:
        (model,) = running.get("/v1/models").json()["models"]
        assert model["device"].startswith("cuda")
        for picture in DIGITS:
            answer = running.predict(picture.read_bytes()).json()
            assert answer["predictions"][0]["label"] == picture.name.split("_")[0]

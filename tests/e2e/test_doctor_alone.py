"""The doctor decodes images many times over, by itself: nobody else's images wait for that."""

from __future__ import annotations

import os

import numpy as np
import pytest

from .digits import MULTIPART, SLOW_SETTINGS, SLOW_SIDE, Digits, encoded, multipart
from .server import Server, until
from .wire import head, reply, reset

pytestmark = pytest.mark.e2e

DOCTOR = "/v1/models/digits/doctor"
SLOW = encoded(np.zeros((1, SLOW_SIDE, SLOW_SIDE), np.uint8))


def request(images: list[bytes]) -> bytes:
    body = multipart(images)
    return (
        head(f"Content-Length: {len(body)}", address=DOCTOR).replace(b"image/png", MULTIPART.encode()) + body
    )


def worked_s(server: Server) -> float:
    return server.metric("foldserve_process_cpu_seconds_total", "worker-0")


def test_others_images_are_decoded_meanwhile(digits: Digits) -> None:
    with Server.start(**SLOW_SETTINGS) as server:
        form = request([SLOW] * 15 + [b"broken"])  # which shows when all others were decoded once
        before = worked_s(server)
        patients = [server.connect() for _ in range(2 * (os.cpu_count() or 1))]
        for patient in patients:
            patient.sendall(form)
        until(lambda: worked_s(server) > before + 0.5)
        answer = server.predict(encoded(np.kron(digits.pixels[0], np.ones((1, 80, 80), np.uint8))))
        assert answer.status_code == 200, answer.text
        for patient in patients:
            patient.setblocking(False)
            with pytest.raises(BlockingIOError):
                patient.recv(1)
        for patient in patients[1:]:
            reset(patient)
        patients[0].setblocking(True)
        refused = reply(patients[0])
        assert (refused.status, refused.body["type"]) == (400, "invalid-image")
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log

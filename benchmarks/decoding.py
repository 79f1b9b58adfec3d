"""Which library decodes JPEG fastest, and what an image costs until it is a row.

    pip install 'foldserve[train]' simplejpeg PyTurboJPEG opencv-python-headless imagecodecs pyvips[binary]
    python benchmarks/decoding.py [--decoders foldserve,pillow,simplejpeg] [--sizes 224x224] [--rounds 5]
    python benchmarks/decoding.py --tensors

Decoders that are not installed are left out. The images are a photograph of scikit-learn's at quality 90,
4:2:0; the largest repeats it, mirrored. A row is 3x224x224: the shorter side to 256, antialiased, then the
centre. The decoders take turns; of their rounds the better quartile counts. Prints milliseconds of CPU time
per image on one thread, images per second on 1, 2 and 3 threads at once, and by how many levels a pixel
differs from Pillow's, at most.

With --tensors: microseconds of wall time to copy float32 rows from pieces of 64 KiB, to join the pieces
instead, to check the numbers, and to check them by way of a copy; and what handing work to a thread costs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import numpy as np
import uvloop
from PIL import Image

from service.engine import allocator
from service.inputs._containers import read_container
from service.inputs.decoding import _write_planes, decode_image
from service.inputs.resizing import resized
from service.inputs.rows import refuse_unusable
from service.inputs.tensors import _copy
from service.store.manifest import Input

if TYPE_CHECKING:
    from collections.abc import Callable

    Decode = Callable[[bytes], np.ndarray | Image.Image]

SPEC = Input(shape=[3, 224, 224], resize=256, mean=[0.5] * 3, std=[0.5] * 3)
MAX_PIXELS = 1 << 24
THREADS = (1, 2, 3)


def pillow() -> Decode:
    def decode(content: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(content))
        image.load()
        return image

    return decode


def simplejpeg() -> Decode:
    return importlib.import_module("simplejpeg").decode_jpeg


def pyturbojpeg() -> Decode:
    library: Any = importlib.import_module("turbojpeg")
    decoder = library.TurboJPEG()
    return lambda content: decoder.decode(content, pixel_format=library.TJPF_RGB)


def opencv() -> Decode:
    library: Any = importlib.import_module("cv2")
    library.setNumThreads(0)
    flags = library.IMREAD_COLOR_RGB | library.IMREAD_IGNORE_ORIENTATION
    return lambda content: library.imdecode(np.frombuffer(content, np.uint8), flags)


def imagecodecs() -> Decode:
    return importlib.import_module("imagecodecs").jpeg8_decode


def pyvips() -> Decode:
    library: Any = importlib.import_module("pyvips")
    return lambda content: library.Image.new_from_buffer(content, "").numpy()


DECODERS: dict[str, Callable[[], Decode]] = {
    "foldserve": pillow,
    "pillow": pillow,
    "simplejpeg": simplejpeg,
    "pyturbojpeg": pyturbojpeg,
    "opencv": opencv,
    "imagecodecs": imagecodecs,
    "pyvips": pyvips,
}


def rows_of(name: str, decode: Decode) -> Callable[[bytes], np.ndarray]:
    """From a JPEG to its row: as we do it, as the usual transforms do, or as we do around another decoder."""

    def ours(content: bytes) -> np.ndarray:
        row = np.empty(SPEC.shape, np.uint8)
        decode_image(content, SPEC, MAX_PIXELS, row)
        return row

    def usual(content: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        long = int(256 * max(image.size) / min(image.size))
        size = (256, long) if image.width <= image.height else (long, 256)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
        image = image.crop((left, top, left + 224, top + 224))
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def around(content: bytes) -> np.ndarray:
        row = np.empty(SPEC.shape, np.uint8)
        image = Image.fromarray(np.asarray(decode(read_container(content).stream)))
        _write_planes(resized(image, SPEC), row)
        return row

    return {"foldserve": ours, "pillow": usual}.get(name, around)


def photograph(width: int, height: int) -> bytes:
    """A JPEG of this size with the fine detail of a photograph."""
    image = importlib.import_module("sklearn.datasets").load_sample_image("china.jpg")
    if width > image.shape[1]:
        more = (max(height - image.shape[0], 0), width - image.shape[1])
        pixels = np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), mode="symmetric")[:height]
        picture = Image.fromarray(pixels)
    else:
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90, subsampling="4:2:0")
    return stream.getvalue()


def rate(
    work: Callable[[bytes], object], content: bytes, threads: int, seconds: float
) -> tuple[float, float]:
    """Images per second of `threads` threads at once, and seconds of CPU time per image."""
    done = [0] * threads
    until = time.perf_counter() + seconds

    def repeat(thread: int) -> None:
        while not done[thread] or time.perf_counter() < until:
            work(content)
            done[thread] += 1

    running = [threading.Thread(target=repeat, args=(thread,)) for thread in range(threads)]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(done) / (time.perf_counter() - started), (time.process_time() - cpu) / sum(done)


def difference(ours: object, theirs: object) -> int:
    """The largest, in levels."""
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max())


def measure(
    works: dict[str, Callable[[bytes], object]], content: bytes, rounds: int, seconds: float
) -> dict[str, str]:
    """A part of the table for each of `works`, which take turns."""
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for work in works.values():
        work(content)
    for _ in range(rounds):
        for threads in THREADS:
            for name, work in works.items():
                seen.setdefault((name, threads), []).append(rate(work, content, threads, seconds))
    cells = {}
    for name in works:
        rates = [statistics.quantiles([images for images, _ in seen[name, n]], n=4)[2] for n in THREADS]
        cpu_s = statistics.quantiles([cpu for _, cpu in seen[name, 1]], n=4)[0]
        cells[name] = f"{1e3 * cpu_s:.2f} | {' / '.join(f'{images:.0f}' for images in rates)}"
    return cells


def available(names: list[str]) -> dict[str, Decode]:
    """The decoders that can be used here, by name."""
    found = {}
    for name in names:
        try:
            found[name] = DECODERS[name]()
        except (ImportError, RuntimeError, OSError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def microseconds(work: Callable[[], object], seconds: float) -> float:
    """How long a call takes, the best of 20 rounds."""
    best, started = float("inf"), time.perf_counter()
    work()
    calls = max(1, int(seconds / 20 / (time.perf_counter() - started)))
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        best = min(best, (time.perf_counter() - started) / calls)
    return 1e6 * best


def through_a_copy(rows: np.ndarray) -> bool:
    """The same check, with an array of absolute values and one of booleans."""
    return bool((np.abs(rows) <= 1e9).reshape(len(rows), -1).all(axis=1).all())


def measure_tensors(seconds: float) -> None:
    """Print the table of `--tensors`."""
    print("| rows | copied | joined | checked | through a copy |")
    print("|---|---|---|---|---|")
    for shape in ((1, 1, 8, 8), (1, 3, 224, 224), (32, 3, 224, 224)):
        rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        content = rows.tobytes()
        chunks = [content[start : start + 65536] for start in range(0, len(content), 65536)]
        works: list[Callable[[], object]] = [
            lambda chunks=chunks, rows=rows: _copy(chunks, 0, rows),
            lambda chunks=chunks: np.frombuffer(b"".join(chunks), np.float32),
            lambda rows=rows: refuse_unusable(rows),
            lambda rows=rows: through_a_copy(rows),
        ]
        cells = " | ".join(f"{microseconds(work, seconds):.0f}" for work in works)
        print(f"| {list(shape)} | {cells} |")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(f"to a thread and back: {1e6 * runner.run(hop()):.0f}")


async def hop() -> float:
    """Seconds that nothing takes on another thread, the median."""
    loop, seconds = asyncio.get_running_loop(), []
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5000):
            started = time.perf_counter()
            await loop.run_in_executor(threads, int)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decoders", default=",".join(DECODERS))
    parser.add_argument("--sizes", default="224x224,500x375,1920x1080")
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    parser.add_argument(
        "--give-back", action="store_true", help="freed memory to the system, as glibc does by itself"
    )
    parser.add_argument("--tensors", action="store_true", help="measure rows of numbers instead of images")
    arguments = parser.parse_args()
    if arguments.tensors:
        measure_tensors(arguments.seconds)
        return
    if not arguments.give_back:
        allocator.share_one_arena()
        allocator.keep()
    decoders = available(arguments.decoders.split(","))
    print("| image | decoder | decode, ms | images/s | row, ms | images/s | levels off, decoded / row |")
    print("|---|---|---|---|---|---|---|")
    for size in arguments.sizes.split(","):
        content = photograph(*map(int, size.split("x")))
        makers = {name: rows_of(name, decode) for name, decode in decoders.items()}
        usual = rows_of("pillow", pillow())(content)
        decoding = measure(dict(decoders), content, arguments.rounds, arguments.seconds)
        making = measure(dict(makers), content, arguments.rounds, arguments.seconds)
        for name, decode in decoders.items():
            off = difference(decode(content), pillow()(content)), difference(makers[name](content), usual)
            print(f"| {size} | {name} | {decoding[name]} | {making[name]} | {off[0]} / {off[1]} |")


if __name__ == "__main__":
    main()

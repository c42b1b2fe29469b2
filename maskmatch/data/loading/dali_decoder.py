"""Decoding and cropping with NVIDIA DALI: on the GPU where there is one, else by its CPU operators."""

from __future__ import annotations

import io
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from PIL import Image
from torch import Tensor

from maskmatch.common.errors import UserError
from maskmatch.data.dataset import Pair
from maskmatch.data.decoding.files import FileError
from maskmatch.data.loading.loader import Item
from maskmatch.data.loading.sampling import Sample
from maskmatch.data.loading.source import Source
from maskmatch.data.loading.views import Geometry, plan


class DaliDecoder:
    """Weak views on `device`; safe to call from several threads, which take turns.

    Bytes and parameters are handed in, so a batch depends on its items alone. Images that are kept in memory
    are handed in decoded.
    """

    def __init__(
        self, crop: tuple[int, int], source: Source, *, batch_size: int, threads: int, device: torch.device
    ) -> None:
        self.crop = crop
        self.source = source
        self.device = device
        self._turn = Lock()
        self.pipeline = _built(crop, device, decoded=source.keeps, batch_size=batch_size, threads=threads)

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, list[Geometry]]:
        """Weak views, uint8 [N, H, W, 3], and how each was cut out."""
        images, sizes = zip(*(self._input(pair) for pair, _ in items), strict=True)
        geometries = [
            plan(height, width, sample, self.crop) for (height, width), (_, sample) in zip(sizes, items, strict=True)
        ]
        try:
            with self._turn:
                views = _run(self.pipeline, self.device, images, geometries)
        except RuntimeError as error:
            raise self._named([pair for pair, _ in items], error) from error
        return views, geometries

    def _input(self, pair: Pair) -> tuple[np.ndarray, tuple[int, int]]:
        """What the pipeline takes of an image, and its (height, width)."""
        if self.source.keeps:
            image = self.source.image(pair)
            return image, (image.shape[0], image.shape[1])
        content, size = self.source.encoded(pair)
        return np.frombuffer(content, np.uint8), size

    def _named(self, pairs: Sequence[Pair], error: RuntimeError) -> UserError:
        """DALI names no file: decode the batch's files again to find the broken one."""
        try:
            for pair in pairs:
                self.source.image(pair)
        except FileError as named:
            return named
        first_line = str(error).strip().partition("\n")[0]
        return UserError(
            f"DALI cannot decode one of {len(pairs)} images (`--data.loader torch` may): {first_line}: "
            f"{pairs[0].image}, ..."
        )


def try_pipeline(device: torch.device) -> None:
    """Decode a small JPEG as a training would; raises whatever keeps DALI from it."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(content, "jpeg")
    sample = Sample(0, 0, 1.0, 0.0, 0.0, flip=False, jitter=(), grayscale=False, blur=0.0, seed=0)
    pipeline = _built((8, 8), device, decoded=False, batch_size=1, threads=1)
    _run(pipeline, device, [np.frombuffer(content.getvalue(), np.uint8)], [plan(16, 16, sample, (8, 8))])


def _built(crop: tuple[int, int], device: torch.device, *, decoded: bool, batch_size: int, threads: int) -> Pipeline:
    on_gpu = device.type == "cuda"
    pipeline = weak_view_pipeline(
        crop,
        on_gpu,
        decoded,
        batch_size=batch_size,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        # The static executor would overwrite a batch that is still held.
        exec_dynamic=True,
        prefetch_queue_depth=1,
    )
    pipeline.build()
    return pipeline


def _run(
    pipeline: Pipeline, device: torch.device, images: Sequence[np.ndarray], geometries: Sequence[Geometry]
) -> Tensor:
    """Weak views, uint8 [N, H, W, 3]; on a GPU in the order of the current stream."""
    sources = np.array([(g.rows.source, g.columns.source) for g in geometries], np.float32)
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    (views,) = pipeline.run(
        stream,
        images=list(images),
        start=np.ascontiguousarray(sources[..., 0]),
        end=np.ascontiguousarray(sources[..., 1]),
        size=np.array([g.size for g in geometries], np.float32),
        flip=np.array([g.flip for g in geometries], np.int32),
    )
    found = torch.from_dlpack(views.as_tensor())
    # DALI takes its memory back in the order of its own work, however long another stream still reads it.
    return found.clone() if found.is_cuda else found


@pipeline_def
def weak_view_pipeline(crop: tuple[int, int], on_gpu: bool, decoded: bool) -> Any:
    """Files (or decoded images) and geometry -> padded weak views, uint8 [N, H, W, 3]."""
    start, end, size, flip = (fn.external_source(name=name, batch=True) for name in ("start", "end", "size", "flip"))
    images: Any = fn.external_source(name="images", batch=True, layout="HWC" if decoded else None)
    if not decoded:
        images = fn.decoders.image(
            images,
            device="mixed" if on_gpu else "cpu",
            output_type=types.DALIImageType.RGB,
            adjust_orientation=False,  # the source sees to it
            jpeg_fancy_upsampling=True,  # on the GPU as on the CPU
        )
    elif on_gpu:
        images = images.gpu()
    images = fn.resize(
        images,
        size=size,
        roi_start=start,
        roi_end=end,
        roi_relative=False,
        interp_type=types.DALIInterpType.INTERP_LINEAR,
        antialias=True,
    )
    images = fn.flip(images, horizontal=flip)
    return fn.pad(images, axes=(0, 1), shape=crop, fill_value=0)

"""How large an image file may be; Pillow's own limits, which sound files exceed, are out of the way."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from PIL import Image, PngImagePlugin

MOST_PIXELS = 2**30
"""Of an image file, where memory allows them; OpenCV reads no more either."""
BYTES_A_PIXEL = 12
"""What decoding takes: the file, the decoder's picture and the array."""
SHARE = 0.25
"""Part of the free memory that one file may take."""

Image.MAX_IMAGE_PIXELS = None  # 179 million, whatever the memory; `most_pixels` takes its place
# Screenshots and editors store megabytes of text in a PNG, and Pillow takes one; packed text can grow a thousandfold.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**28


@cache
def most_pixels() -> int:
    """Pixels that an image file may have in this process, by the memory that is free when this is first asked."""
    return min(MOST_PIXELS, int(SHARE * free_memory()) // BYTES_A_PIXEL)


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of its container where that has less."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # not on every platform
            return 2**32
    container = Path("/sys/fs/cgroup")
    try:
        most, taken = ((container / name).read_text().strip() for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (container / "memory.stat").read_text().splitlines())
        # Files that are cached count as taken, but give way.
        return min(free, int(most) - int(taken) + int(counts["inactive_file"])) if most != "max" else free
    except (OSError, KeyError, ValueError):
        return free

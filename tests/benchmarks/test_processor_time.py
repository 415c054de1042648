import mmap
import os
import sys

from benchmarks.processor_time import page_faults


def test_memory_that_is_touched_first_is_counted() -> None:
    before, pages = page_faults(os.getpid()), 1000
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        if sys.platform == "linux":
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(pages):
            memory[page * mmap.PAGESIZE] = 1
    assert page_faults(os.getpid()) - before >= pages

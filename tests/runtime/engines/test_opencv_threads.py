from __future__ import annotations

import contextlib

import cv2

from motorvae.runtime.engines.opencv_threads import opencv_kept_single


def test_opencv_works_in_the_calling_thread() -> None:
    before = cv2.getNumThreads()
    first, second = opencv_kept_single(), opencv_kept_single()
    with contextlib.ExitStack() as stack:
        stack.enter_context(first)
        with second:
            assert cv2.getNumThreads() == 1
            stack.close()  # the first ends before the second
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == before

from __future__ import annotations

import threading

import pytest

from motorvae.runtime.core.system.workers import (
    StoppedError,
    Workers,
    check_wanted,
    pause,
    waited_for,
)


def test_what_is_submitted_is_done_and_what_it_raises_is_passed_on() -> None:
    workers = Workers(2, "test")
    try:
        assert [workers.submit(pow, 2, n) for n in range(4)][3].result() == 8
        with pytest.raises(ZeroDivisionError):
            workers.submit(divmod, 1, 0).result()
    finally:
        workers.end()


def test_the_end_waits_for_what_goes_on_and_begins_nothing_more() -> None:
    workers, begun, done = Workers(1, "test"), threading.Event(), list[str]()
    go_on = threading.Event()

    def first() -> None:
        begun.set()
        go_on.wait()
        done.append("first")

    workers.submit(first)
    later = workers.submit(done.append, "later")
    begun.wait()
    ending = threading.Thread(target=workers.end)
    ending.start()
    go_on.set()
    ending.join()
    assert done == ["first"]
    assert not later.done()


def test_the_end_does_not_wait_for_a_server_and_nothing_follows_its_answer() -> None:
    workers, asked, answers = Workers(1, "test"), threading.Event(), threading.Event()
    done = list[str]()

    def server() -> None:
        asked.set()
        answers.wait()

    def read() -> None:
        waited_for(server)
        done.append("read")

    future = workers.submit(read)
    asked.wait()
    workers.end()  # returns though there is no answer
    answers.set()
    assert isinstance(future.exception(), StoppedError)
    assert done == []


@pytest.mark.parametrize("look", [check_wanted, lambda: pause(3600), lambda: waited_for(int)])
def test_a_thread_that_is_to_end_sees_it_everywhere(look: object) -> None:
    assert callable(look)
    workers, begun = Workers(1, "test"), threading.Event()

    def work() -> None:
        begun.set()
        while True:
            look()

    future = workers.submit(work)
    begun.wait()
    workers.end()
    assert isinstance(future.exception(), StoppedError)


def test_other_threads_are_not_concerned() -> None:
    check_wanted()
    pause(0)
    assert waited_for(int) == 0

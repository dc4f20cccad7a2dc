from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.private import without_private


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            "CUDA failure 2 ; GPU=0 ; hostname=box7 ; line=66",
            "CUDA failure 2 ; GPU=0 ; hostname=... ; line=66",
        ),
        ("Host name: box7.example.org, then", "Host name: ..., then"),
        ('user="ada" may not', "user=... may not"),
        ("cannot open /home/ada/models/encoder.onnx", "cannot open ~/models/encoder.onnx"),
        ("cannot open '/Users/ada': no", "cannot open '~': no"),
        ("file:///root/bundle", "file://~/bundle"),
        ("box7 and box7.example.org refused", "... and ... refused"),
        # Nothing of these is anybody's.
        ("/opt/rooted/x and /data/root/x", "/opt/rooted/x and /data/root/x"),
        ("users: 3; the box70 stays", "users: 3; the box70 stays"),
        (
            "provider CUDAExecutionProvider did not load",
            "provider CUDAExecutionProvider did not load",
        ),
    ],
)
def test_hosts_users_and_homes_go_and_the_rest_stays(said: str, left: str) -> None:
    assert without_private(said, host="box7.example.org") == left
    assert without_private(left, host="box7.example.org") == left


def test_the_home_of_whoever_runs_it_goes_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        without_private(f"no {tmp_path}/bundle, no {tmp_path}2") == f"no ~/bundle, no {tmp_path}2"
    )


def test_a_host_name_that_is_a_word_is_taken_for_one() -> None:
    assert without_private("in a vm on localhost", host="vm") == "in a vm on localhost"
    assert without_private("on localhost", host="localhost") == "on localhost"

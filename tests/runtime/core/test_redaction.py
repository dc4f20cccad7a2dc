"""What must not leave a machine in a text: credentials, its name, its users, their folders."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.core.redaction import name_of_address, without_credentials, without_private
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.spec import name_of_pipeline

MARK = "s3same"
"""Inside every password, so that a part of one is found, too."""
secrets = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(
    lambda text: f"{MARK}{text}{MARK}"
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a.mp4", "http://host/a.mp4"),
        ("http://host:8080/a?token=x#y", "http://host:8080/a"),
        ("rtsp://user:pass@host/live", "rtsp://***@host/live"),
        ("rtsp://user:p@ss@host:554/live", "rtsp://***@host:554/live"),
        ("rtsp://user:pa/ss@host/live", "rtsp://***@host/live"),
        ("rtsp://user:pa?s#s@host/live", "rtsp://***"),
        ("http://host/a?key=x@y", "http://***"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://[::1/a", "http://[::1/a"),
        ("http://", "http://"),
        ("user:pass@host/live", "***@host/live"),
        # The forms that video recorders take, with everything in the path.
        (
            "rtsp://host:554/user=admin&password=x&channel=1&stream=0.sdp",
            "rtsp://host:554/user=***&channel=1&stream=0.sdp",
        ),
        (
            "rtsp://host/user=admin_password=tl/J&w=p_channel=12_stream=0.sdp?real_stream",
            "rtsp://host/user=***_channel=12_stream=0.sdp",
        ),
        ("rtsp://host/live/pwd%3Dx", "rtsp://host/live/pwd%3D***"),
        ("http://host/x;api_key=123/video", "http://host/x;api_key=***"),
        ("http://host/AccessToken=123", "http://host/AccessToken=***"),
        ("rtsp://host:554/0/admin:12345/main", "rtsp://host:554/0/***/main"),
        ("http://host/monkey=1/compass=2", "http://host/monkey=1/compass=2"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@given(secrets, secrets)
@example(f"{MARK}?x@{MARK}", f"{MARK}@{MARK}")
@example(f"{MARK}://{MARK}", f"{MARK}#{MARK}")
def test_neither_password_nor_query_is_shown(password: str, token: str) -> None:
    for url in (
        f"rtsp://user:{password}@host/live",
        f"http://host/live?key={token}",
        f"http://user:{password}@host/live?key={token}",
        f"user:{password}@host/live",
        f"rtsp://host/user=admin&password={password}&channel=1",
        f"rtsp://host/user={password}_password={token}_channel=1",
    ):
        assert MARK not in without_credentials(url)


@given(secrets)
def test_a_pipeline_is_called_by_its_first_element(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    for pipeline in (
        f"rtspsrc location=rtsp://user:{password}@host/x user-pw={password} ! decodebin",
        f'rtspsrc location="rtsp://user:{quoted}@host/x" ! decodebin',
        f"user-pw={password} rtspsrc",
        f'"{quoted}" ! appsink',
    ):
        assert MARK not in name_of_pipeline(pipeline)
    assert name_of_pipeline(f" rtspsrc user-pw={password} ! decodebin") == "gst:rtspsrc"


@settings(max_examples=40, deadline=None)
@given(secrets.filter(lambda text: not set("/?#@") & set(text)))
@example(f"{MARK}[{MARK}")
@example(f"{MARK}:{MARK}")
def test_no_error_repeats_a_password(password: str) -> None:
    """Nobody listens there, so that FFmpeg fails, with the URL in its own error."""
    for text in (
        f"http://user:{password}@127.0.0.1:9/live?key={password}",
        f"rtsp://user:{password}@127.0.0.1:9/live",
        f"gst:rtspsrc location=rtsp://user:{password}@127.0.0.1:9/x user-pw={password} ! fakesink",
        f"user:{password}@127.0.0.1/live",
    ):
        with pytest.raises(MotorVAEError) as caught:
            open_source(text)
        error: BaseException | None = caught.value
        while error is not None:  # all that a traceback would print
            assert MARK not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


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
        ("ada.lovelace may not, /data/ada.lovelace/x", "... may not, /data/.../x"),
        ("GPU-12345678-9abc-def0-1234-56789abcdef0 fell", "GPU-... fell"),
        ("Serial Number : 1650522003820", "Serial Number : ..."),
        # Nothing of these is anybody's.
        ("serial execution of 12 kernels", "serial execution of 12 kernels"),
        ("/opt/rooted/x and /data/root/x", "/opt/rooted/x and /data/root/x"),
        ("users: 3; the box70 stays", "users: 3; the box70 stays"),
        (
            "provider CUDAExecutionProvider did not load",
            "provider CUDAExecutionProvider did not load",
        ),
    ],
)
def test_hosts_users_and_homes_go_and_the_rest_stays(
    said: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "box7.example.org")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada.lovelace")
    assert without_private(said) == left
    assert without_private(left) == left


def test_the_home_of_whoever_runs_it_goes_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        without_private(f"no {tmp_path}/bundle, no {tmp_path}2") == f"no ~/bundle, no {tmp_path}2"
    )


@pytest.mark.parametrize("user", ["max", "nvidia", "jetson"])
def test_a_user_name_that_is_a_word_is_taken_for_one(
    user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    said = "/usr/lib/nvidia/x.so: at max 3, on a jetson"
    assert without_private(said) == said


def test_a_user_number_without_a_name_hides_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert without_private("provider 'cuda' is not there") == "provider 'cuda' is not there"


@pytest.mark.parametrize("host", ["vm", "localhost"])
def test_a_host_name_that_is_a_word_is_taken_for_one(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: host)
    assert without_private("in a vm on localhost") == "in a vm on localhost"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://host/a.jpg", "https://host/a.jpg"),
        ("https://host/image?id=5", "https://host/image?id=5"),
        ("https://host/image?id=5&token=SECRET#top", "https://host/image?id=5"),
        (
            "https://me:SECRET@host/image?file=a%20b.jpg&w=64",
            "https://***@host/image?file=a%20b.jpg&w=64",
        ),
        ("https://host/image?user=me&password=SECRET", "https://host/image"),
        ("https://host/a?apikey=SECRET&n=1&&", "https://host/a?n=1"),
        ("https://host/a?st=1&id=2", "https://host/a?id=2&~3b8c5f4a0f4a"),
        ("https://host/a?id=5;SECRET&5", "https://host/a?~"),
        ("https://host/a?x@SECRET", "https://***"),
        ("https://host/a#?id=5", "https://host/a"),
        ("s3://bucket/a#1.jpg", "s3://bucket/a#1.jpg"),
        ("s3://bucket/cam/2024-01-01T10:00:00.jpg", "s3://bucket/cam/2024-01-01T10:00:00.jpg"),
        ("gs://bucket/icon@2x.jpg", "gs://bucket/icon@2x.jpg"),
        ("s3://bucket/key=5/a.jpg", "s3://bucket/key=5/a.jpg"),
        ("s3://me:SECRET@bucket/a.jpg", "s3://***@bucket/a.jpg"),
        ("abfs://container@account.net/a.jpg", "abfs://container@account.net/a.jpg"),
        ("https://host/10:00:00.jpg", "https://host/10:00:00.jpg"),
        (
            "https://host/cam/2024-01-01T10:00.jpg?id=5",
            "https://host/cam/2024-01-01T10:00.jpg?id=5",
        ),
        ("https://me:SECRET@host/icon@2x.jpg", "https://***@host/icon@2x.jpg"),
        ("https://host/admin12:34SECRET/a.jpg", "https://host/***/a.jpg"),
        ("https://host/password=SECRET/a.jpg", "https://host/password=***"),
        ("https://host/password=12:34@2x.jpg", "https://***"),
        ("https://me:SECRET/10:00@host/a.jpg", "https://***@host/a.jpg"),
        ("https://me:SEC/RET@host/a.jpg", "https://***@host/a.jpg"),
        (
            "s3://bucket/a.jpg?versionId=3HL4kqtJvjVBH40Nrjfkd",
            "s3://bucket/a.jpg?versionId=3HL4kqtJvjVBH40Nrjfkd",
        ),
    ],
)
def test_what_an_address_is_called(address: str, name: str) -> None:
    found = name_of_address(address)
    assert found.partition("~")[0] == name.partition("~")[0]
    assert ("~" in found) == ("~" in name)
    assert "SECRET" not in found


QUERIES = {
    "amazon": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA{0}%2Fus%2Fs3%2Faws4_request"
    "&X-Amz-Date={0}&X-Amz-Expires=60{0}&X-Amz-SignedHeaders=host&X-Amz-Security-Token=a{0}"
    "&X-Amz-Signature=b{0}",
    "amazon, version 2": "AWSAccessKeyId=AKIA{0}&Expires=1{0}&Signature=a%2B{0}",
    "cloudfront": "Expires=1{0}&Signature=a~{0}&Key-Pair-Id=K{0}&Policy=e{0}&Hash-Algorithm=SHA{0}",
    "google": "X-Goog-Algorithm=GOOG4&X-Goog-Credential=a{0}&X-Goog-Date={0}&X-Goog-Signature={0}",
    "azure": "sv=2022-{0}&st={0}&se={0}&sr=b&sp=r&spr=https&sip=1.{0}&skoid={0}&sktid={0}&skt={0}"
    "&ske={0}&sks=b&skv={0}&sig=a{0}%3D",
    "others": "exp={0}&ts={0}&hmac={0}&nonce={0}",
}


@pytest.mark.parametrize("of", QUERIES)
def test_an_address_that_is_signed_once_more_keeps_its_name(of: str) -> None:
    def name(picture: str, signed: int) -> str:
        return name_of_address(f"https://host/get?{picture}&{QUERIES[of].format(signed)}")

    assert name("id=5", 111) == name("id=5", 222) == "https://host/get?id=5"
    assert len({name(one, 111) for one in ("id=5", "id=6", "key=a/1.jpg", "key=a/2.jpg")}) == 4
    assert name("key=a/1.jpg", 111) == name("key=a/1.jpg", 222)


@given(secrets, st.sampled_from(["password", "token", "sig", "secret", "x-amz-signature", "pwd"]))
def test_no_part_of_a_secret_in_a_query_is_in_a_name(secret: str, key: str) -> None:
    for address in (f"https://host/a?id=5&{key}={secret}", f"https://host/a?{key}={secret}&id=5"):
        assert MARK not in name_of_address(address)

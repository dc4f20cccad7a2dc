from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.sources.device_names import Camera, cameras, stable_path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What udev makes of cameras, one of which has no serial number."""
    for folder in ("dev/v4l/by-id", "dev/v4l/by-path", "sys/class/video4linux"):
        (tmp_path / folder).mkdir(parents=True)
    for number, label in ((0, "Front\n"), (1, "Front\n"), (2, None), (10, "Rear\n")):
        (tmp_path / "dev" / f"video{number}").touch()
        node = tmp_path / "sys/class/video4linux" / f"video{number}"
        node.mkdir()
        if label:
            (node / "name").write_text(label)
    for link, number in (
        ("by-id/usb-Maker_Front_123-video-index0", 0),
        ("by-id/usb-Maker_Front_123-video-index1", 1),
        ("by-path/pci-0-usb-0:1:1.0-video-index0", 0),
        ("by-path/pci-0-usb-0:2:1.0-video-index0", 10),
    ):
        (tmp_path / "dev/v4l" / link).symlink_to(f"../../video{number}")
    return tmp_path


@pytest.mark.parametrize(
    ("number", "link"),
    [
        (0, "by-id/usb-Maker_Front_123-video-index0"),
        (1, "by-id/usb-Maker_Front_123-video-index1"),
        (10, "by-path/pci-0-usb-0:2:1.0-video-index0"),
    ],
)
def test_the_name_by_id_is_preferred_to_the_one_by_path(tree: Path, number: int, link: str) -> None:
    links = tree / "dev/v4l"
    assert stable_path(tree / "dev" / f"video{number}", links) == links / link


def test_a_camera_without_links_has_no_stable_name(tree: Path) -> None:
    assert stable_path(tree / "dev/video2", tree / "dev/v4l") is None
    assert stable_path(tree / "dev/video0", tree / "nowhere") is None


def test_the_cameras_of_this_machine_are_listed_in_the_order_of_their_numbers(tree: Path) -> None:
    found = cameras(tree)
    assert [(camera.path.name, camera.label) for camera in found] == [
        ("video0", "Front"),
        ("video1", "Front"),
        ("video2", "name unknown"),
        ("video10", "Rear"),
    ]
    assert found[2] == Camera(tree / "dev/video2", "name unknown", None)


def test_elsewhere_than_on_linux_there_are_none(tmp_path: Path) -> None:
    assert cameras(tmp_path / "nowhere") == []

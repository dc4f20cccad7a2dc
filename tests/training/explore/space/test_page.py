from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.training.explore.factors.labels import Factor
from motorvae.training.explore.space.collection import Collection
from motorvae.training.explore.space.colouring import coloured
from motorvae.training.explore.space.originals import SIDE, Thumbnails, no_thumbnails
from motorvae.training.explore.space.page import page_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="opening the page needs chromium: apt-get install chromium"
)
HOSTILE = "</script><script>document.title='owned'</script>.png"
COLOURS = [(200, 30, 40), (20, 160, 60), (40, 60, 210), (210, 200, 30), (120, 20, 160)]
"""Of each image, RGB."""
POINTS = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]])
NAMES = ("a.png", "b/ü.png", HOSTILE, "<b>d</b>.png", "\"e' & $f$.png")
PROBE = """
addEventListener("load", () => setTimeout(() => {
  const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect();
  const card = document.getElementById("card"), picture = card.querySelector("canvas");
  const shown = () => card.hidden ? null : {
    name: card.querySelector("b").textContent, label: card.querySelector("span").textContent,
    pixel: [...picture.getContext("2d").getImageData(48, 48, 1, 1).data].slice(0, 3),
    hidden: picture.hidden,
  };
  const point = (x, y) => canvas.dispatchEvent(new PointerEvent(
    "pointermove", { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
  const press = key => canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const found = { pointed: [], keys: [], screens: [] };
  for (let row = 0; row < COUNT; row++) {
    found.screens.push(latentMap.screenOf(row));
    point(...latentMap.screenOf(row));
    found.pointed.push(shown());
  }
  point(1, 1);
  found.nowhere = shown();
  latentMap.choose(0);
  for (const key of ["ArrowRight", "ArrowUp", "ArrowLeft"]) {
    press(key);
    found.keys.push(shown().name);
  }
  found.said = document.getElementById("said").textContent;
  const apart = () => latentMap.screenOf(1)[0] - latentMap.screenOf(0)[0];
  const before = apart();
  press("+");
  found.zoomed = apart() / before;
  press("0");
  found.back = apart() / before;
  const button = document.querySelector("#classes button");
  if (button) {
    button.click();
    point(...latentMap.screenOf(0));
    found.filtered = shown();
  }
  found.legend = document.getElementById("legend").innerText;
  found.scripts = document.scripts.length;
  found.html = document.querySelector("#legend b, #card b b") !== null;
  found.fetched = performance.getEntriesByType("resource").map(entry => entry.name)
    .filter(name => !name.startsWith("data:"));
  document.title = JSON.stringify(found);
}, 200));
"""


def collection(names: tuple[str, ...] = NAMES, **changes: Any) -> Collection:
    images = np.empty((len(names), SIDE, SIDE, 3), np.uint8)
    for row, image in enumerate(images):
        image[:] = COLOURS[row % len(COLOURS)][::-1]
    found = Thumbnails(images, np.ones(len(names), np.bool_))
    mu = np.zeros((len(names), 2), np.float32)
    return Collection(
        **{"names": names, "mu": mu, "log_var": None, "thumbnails": found, "source": "", **changes}
    )


def written(folder: Path, text: str) -> Path:
    page = folder / "map.html"
    page.write_text(text, encoding="utf-8")
    return page


def browse(page: Path, profile: Path) -> tuple[dict[str, Any], str]:
    """Let a copy of the page, which may run this one script more, be pointed at."""
    text = page.read_text(encoding="utf-8")
    allowed = re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text)
    assert allowed != text
    script = PROBE.replace("COUNT", str(len(NAMES)))
    probe = page.with_name("probe.html")
    probe.write_text(allowed.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    done = opened(probe, profile)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[:300] + done.stderr[-2000:]
    import html

    return json.loads(html.unescape(title[1])), done.stderr


def opened(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1000,700"),
            *(f"--user-data-dir={profile}", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )


@needs_chromium
def test_pointing_at_a_dot_shows_its_picture_and_name(tmp_path: Path) -> None:
    classes = Factor("<i>kind</i>", np.array([0.0, 1, 1, np.nan, 1]), ("<b>x</b>", "other"))
    text = page_of(
        collection(), POINTS, coloured(classes, 5), title="<u>t</u> & co", summary="s < t"
    )
    found, said = browse(written(tmp_path, text), tmp_path / "profile")
    # What this test itself does, reading pixels, is remarked on.
    console = [line for line in said.splitlines() if "CONSOLE" in line]
    assert [line for line in console if "willReadFrequently" not in line] == []
    for row, shown in enumerate(found["pointed"]):
        assert shown["name"] == NAMES[row]
        assert not shown["hidden"]
        assert shown["pixel"] == pytest.approx(COLOURS[row], abs=8)
    assert [shown["label"] for shown in found["pointed"]] == [
        "<b>x</b>",
        "other",
        "other",
        "",
        "other",
    ]
    (left, low), (right, _), (_, high) = found["screens"][:3]
    assert left < right
    assert high < low  # upwards
    assert found["nowhere"] is None
    assert found["keys"] == [NAMES[1], NAMES[3], NAMES[2]]
    assert NAMES[2] in found["said"]
    assert found["zoomed"] == pytest.approx(1.4)
    assert found["back"] == pytest.approx(1)
    assert found["filtered"] is None
    assert found["legend"].split("\n")[0] == "<i>kind</i>"
    assert "<b>x</b>" in found["legend"]
    assert found["html"] is False
    assert found["scripts"] == 3  # the data, ours, and this test's
    assert found["fetched"] == []


@needs_chromium
def test_the_page_as_it_is_runs_its_own_script_and_no_other(tmp_path: Path) -> None:
    text = page_of(collection(), POINTS, coloured(None, 5), title="map", summary="")
    page = written(tmp_path, text)
    done = opened(page, tmp_path / "profile")
    assert "CONSOLE" not in done.stderr
    assert "<title>map</title>" in done.stdout
    planted = text.replace("</body>", "<script>document.title = 'owned'</script></body>")
    done = opened(written(tmp_path, planted), tmp_path / "profile")
    assert re.search(r"CONSOLE.*Content Security Policy", done.stderr)
    assert "<title>map</title>" in done.stdout


def test_nothing_in_the_page_is_another_s_html_or_address() -> None:
    classes = Factor(HOSTILE, np.zeros(5), (HOSTILE,))
    text = page_of(collection(), POINTS, coloured(classes, 5), title=HOSTILE, summary=HOSTILE)
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert "owned'</" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"""(src|href)=["']?[a-z]+:""", text)


def test_what_hides_or_turns_around_a_name_is_spelt_out() -> None:
    odd = ("a\u202egpj.exe", "\u2028", "\udcff", "\x1b[2J", "汉字")
    classes = Factor("n\u200f", np.zeros(5), ("\u202ex",))
    text = page_of(
        collection(odd), POINTS, coloured(classes, 5), title="t\udcff", summary="\u2066s"
    )
    data = json.loads(text.split('id="data">', 1)[1].split("</script>", 1)[0])
    assert data["names"] == [r"a\u202egpj.exe", r"\u2028", r"\udcff", r"\x1b[2J", "汉字"]
    assert data["labels"] == [r"\u202ex"] * 5
    assert data["legend"]["title"] == r"n\u200f"
    assert data["legend"]["classes"] == [r"\u202ex"]
    assert r"<title>t\udcff</title>" in text
    assert r"\u2066s" in text
    assert text.encode()


def test_without_pictures_there_is_no_sprite() -> None:
    text = page_of(
        collection(thumbnails=no_thumbnails(5)), POINTS, coloured(None, 5), title="", summary=""
    )
    assert '"sprite": ""' in text
    assert "image/jpeg" not in text


def test_five_thousand_images_stay_below_so_many_bytes() -> None:
    """Of noise, which no picture is: the most that there can be."""
    count = 5000
    noise = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), np.uint8)
    images = np.concatenate([noise] * (count // 64 + 1))[:count]
    names = tuple(f"folder/{row:05d}.png" for row in range(count))
    thumbnails = Thumbnails(images, np.ones(count, np.bool_))
    points = np.random.default_rng(1).standard_normal((count, 2))
    text = page_of(
        collection(names, thumbnails=thumbnails),
        points,
        coloured(None, count),
        title="",
        summary="",
    )
    assert len(text) < 60e6


def test_a_continuous_factor_has_a_scale_and_unknown_values_are_grey() -> None:
    factor = Factor("speed", np.array([0.0, 5, np.nan, 10, 2.5]))
    found = coloured(factor, 5)
    assert found.ends == ("0", "10")
    assert found.values[2] is None
    assert found.colours[0] != found.colours[1] != found.colours[3]
    assert found.colours[3] == found.palette[-1]
    assert found.texts == ("speed 0", "speed 5", "", "speed 10", "speed 2.5")


def test_of_many_classes_the_rarest_share_a_colour() -> None:
    values = np.repeat(np.arange(40.0), np.arange(40, 0, -1))
    found = coloured(Factor("n", values, tuple(f"class {n}" for n in range(40))), len(values))
    assert found.classes[-1] == "23 other classes"
    assert len(set(found.colours)) == len(found.classes) == len(found.palette)
    assert found.colours[-1] == found.palette[-1]
    assert found.texts[-1] == "class 39"

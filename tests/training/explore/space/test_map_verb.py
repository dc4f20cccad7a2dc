from __future__ import annotations

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import motorvae as mv
from motorvae.training.explore import cli
from motorvae.training.explore.space.options import MapOptions, NeighboursOptions

HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of two kinds: bars across, and bars down, one with a name that is HTML."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for row in range(16):
        image = np.full((48, 48, 3), 255, np.uint8)
        place = 4 + int(rng.integers(30))
        if row % 2:
            image[place : place + 8] = 20
        else:
            image[:, place : place + 8] = 20
        name = HOSTILE if row == 5 else f"{row:02d}.png"
        cv2.imwrite(str(folder / name), image)
    lines = [
        f"{path.name},{'across' if int(path.name[:2]) % 2 else 'down'}"
        for path in sorted(folder.glob("[0-9]*.png"))
    ]
    (folder / "kinds.csv").write_text("file,kind\n" + "\n".join(lines) + "\nnone.png,down\n")
    return folder


@pytest.fixture(scope="module")
def latents(photos: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latents") / "photos.npz"
    mv.encode(small_bundle, photos, path)
    return path


def test_a_file_of_latents_becomes_a_picture_and_a_page(
    latents: Path, photos: Path, tmp_path: Path
) -> None:
    found = mv.explore.map(
        latents,
        images=photos,
        method="pca",
        labels=photos / "kinds.csv",
        color_by="kind",
        output=tmp_path,
    )
    assert {path.name for path in found.files} == {"map.html", "map.png", "map.json", "map.npz"}
    assert f"{photos / 'kinds.csv'}: 1 images have no row, 1 rows no image" in found.lines
    points = json.loads((tmp_path / "map.json").read_text())["numbers"]["points"]
    kinds = {point["name"]: point["label"] for point in points}
    assert kinds["00.png"] == "down"
    assert kinds["01.png"] == "across"
    assert kinds[HOSTILE] == ""
    assert found.numbers["without_picture"] == 0
    text = (tmp_path / "map.html").read_text()
    assert "<img" not in text
    assert "\\u003cimg src=x" in text
    drawn = cv2.imread(str(tmp_path / "map.png"))
    assert drawn is not None
    colours = set(map(tuple, drawn.reshape(-1, 3).tolist()))
    assert {(0xB2, 0x72, 0x00), (0x00, 0x9F, 0xE6)} <= colours  # of the two classes, BGR


def test_without_pictures_the_map_is_of_dots_and_a_line_says_so(
    latents: Path, tmp_path: Path
) -> None:
    found = mv.explore.map(latents, method="pca", output=tmp_path)
    assert found.numbers["without_picture"] == 16
    assert found.lines[0] == (
        "no pictures of the 16 images: say where they are with --images, as motorvae-encode was "
        "called"
    )


def test_a_bundle_brings_its_own_images(small_bundle: Path, tmp_path: Path) -> None:
    found = mv.explore.map(small_bundle, method="pca", output=tmp_path)
    assert found.numbers["images"] == 24
    assert found.numbers["without_picture"] == 0


def test_a_run_on_vehicles_knows_their_factors(finished_run: Path, tmp_path: Path) -> None:
    found = mv.explore.map(finished_run, method="pca", color_by="body", output=tmp_path)
    labels = {point["label"] for point in found.numbers["points"]}
    assert labels <= {"car", "van", "pickup", "bus"}
    assert len(labels) > 1
    with pytest.raises(mv.MotorVAEError, match="vehicles have no factor 'maker': take body"):
        mv.explore.map(finished_run, method="pca", color_by="maker", output=tmp_path)


def test_the_nearest_are_shown_the_image_itself_first(
    latents: Path, photos: Path, small_bundle: Path, tmp_path: Path
) -> None:
    found = mv.explore.neighbours(
        photos / "03.png",
        model=small_bundle,
        latents=latents,
        images=photos,
        count=5,
        output=tmp_path,
    )
    near = found.numbers["neighbours"]
    assert near[0]["name"] == "03.png"
    assert near[0]["distance"] == pytest.approx(0, abs=1e-4)
    assert [one["distance"] for one in near] == sorted(one["distance"] for one in near)
    assert len(near) == 5
    with np.load(latents) as arrays:
        units = np.sqrt(
            arrays["mu"].astype(float).var(0) + np.exp(arrays["log_var"].astype(float)).mean(0)
        )
        away = np.linalg.norm(
            (arrays["mu"] - arrays["mu"][list(arrays["names"]).index("03.png")]) / units, axis=1
        )
        expected = arrays["names"][np.argsort(away)[:5]].tolist()
    assert [one["name"] for one in near] == expected
    sheet = cv2.imread(str(tmp_path / "neighbours.png"))
    assert sheet is not None
    assert sheet.shape[1] > 5 * 96


def test_without_pictures_neighbours_are_names(
    latents: Path, photos: Path, small_bundle: Path, tmp_path: Path
) -> None:
    found = mv.explore.neighbours(
        photos / "03.png", model=small_bundle, latents=latents, output=tmp_path
    )
    assert not (tmp_path / "neighbours.png").exists()
    assert found.lines[0].startswith("no pictures of the 16 images")


def test_latents_of_another_model_s_size_are_refused(
    small_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, names=np.array(["a"]), mu=np.zeros((1, 3), np.float32))
    with pytest.raises(
        mv.MotorVAEError, match=r"'mu' is float32 \(1, 3\).*with this model"
    ) as error:
        mv.explore.neighbours(
            photos / "03.png", model=small_bundle, latents=path, output=tmp_path / "o"
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "o").exists()


def test_latents_of_other_weights_are_refused(
    latents: Path, small_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    with np.load(latents) as file:
        arrays = dict(file)
    own = mv.load(small_bundle).weights_sha256
    assert arrays["weights_sha256"] == own
    np.savez(tmp_path / "other.npz", **arrays | {"weights_sha256": np.array("f" * 64)})
    with pytest.raises(mv.MotorVAEError, match=f"by another model .* {own[:12]}, and not f") as no:
        mv.explore.neighbours(
            photos / "03.png", model=small_bundle, latents=tmp_path / "other.npz", output=tmp_path
        )
    assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MapOptions(labels=Path("a.csv")), "--labels: name one of its columns with --color-by"),
        (MapOptions(model=Path("none.npz")), "cannot read none.npz"),
        (NeighboursOptions(count=0), "--count=0: take 1 to 200"),
        (NeighboursOptions(latents=Path("a.csv")), "--latents=a.csv: name an .npz file"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: MapOptions | NeighboursOptions,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "map" if isinstance(options, MapOptions) else "neighbours"
    with pytest.raises(mv.MotorVAEError) as error:
        cli.explored(name, options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mu", "message"),
    [
        (np.zeros((3, 0)), "holds no latent"),
        (np.zeros((0, 2)), "holds no latent"),
        (np.full((3, 2), 1e300), "'mu' holds numbers beyond float32"),
    ],
)
def test_latents_that_are_none_are_one_line(
    mu: npt.NDArray[np.float64], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "made.npz"
    np.savez(path, names=np.array(["a.png"] * len(mu), "U"), mu=mu)
    with pytest.raises(mv.MotorVAEError, match=message):
        cli.explored("map", MapOptions(model=path, method="pca", output=tmp_path / "out"))
    assert [one.name for one in tmp_path.iterdir()] == ["made.npz"]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["inf", "-inf", "1", "2"], "n: infinite numbers (2) are grey, as unknown ones"),
        (["", "na", "", ""], "n: it is empty for all of these images, which are grey"),
        (["1e300", "-1e300", "0", "5"], ""),
    ],
)
def test_a_column_without_numbers_is_said(cells: list[str], said: str, tmp_path: Path) -> None:
    mu = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    names = [f"{row}.png" for row in range(4)]
    np.savez(tmp_path / "made.npz", names=np.array(names), mu=mu)
    rows = "\n".join(f"{name},{cell}" for name, cell in zip(names, cells, strict=True))
    (tmp_path / "t.csv").write_text(f"name,n\n{rows}\n")
    options = MapOptions(
        model=tmp_path / "made.npz",
        method="pca",
        output=tmp_path / "out",
        labels=tmp_path / "t.csv",
        color_by="n",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = cli.explored("map", options).lines
    assert (said in lines) == bool(said)
    assert bool(said) or not any(line.startswith("n: ") for line in lines)


def test_the_command_takes_in_for_latents(
    latents: Path,
    photos: Path,
    small_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        "neighbours",
        str(photos / "03.png"),
        "--model",
        str(small_bundle),
        "--in",
        str(latents),
    ]
    assert cli.main([*words, "--images", str(photos), "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "nearest to 03.png among 16 images" in said
    assert "neighbours.png" in said

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import DataError
from motorvae.runtime.sources.synthetic.vehicles import factors_from_seed
from motorvae.training.explore.factors.labels import (
    Factor,
    Labels,
    labels_from_csv,
    measurable,
    vehicle_factors,
)


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_of_numbers_are_continuous_and_others_categorical(tmp_path: Path) -> None:
    labels = labels_from_csv(
        table(
            tmp_path, "\ufefffile,speed,maker\na/1.png,3.5,Ford\na/2.png,,Opel\nb/3.png,-1e2,Ford\n"
        )
    )
    speed, maker = labels.matched(["a/2.png", "a/1.png", "3.png"]).factors()
    assert speed.classes == ()
    assert np.array_equal(speed.values, [math.nan, 3.5, -100], equal_nan=True)
    assert speed.known.tolist() == [False, True, True]
    assert maker.classes == ("Ford", "Opel")
    assert maker.values.tolist() == [1, 0, 0]


def test_what_has_no_counterpart_is_counted(tmp_path: Path) -> None:
    labels = labels_from_csv(table(tmp_path, "file,n\n1.png,1\nc/2.png,2\nd/2.png,3\n"))
    matched = labels.matched(["x/1.png", "x/2.png", "d/2.png", "other.png"])
    assert matched.cells == (("1",), None, ("3",), None)  # two rows are called 2.png
    assert matched.remark() == f"{tmp_path / 'labels.csv'}: 2 images have no row, 1 rows no image"
    assert labels.matched(["1.png", "c/2.png", "d/2.png"]).remark() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no labels"),
        ("file,n\n", "has no labels"),
        ("file\n1.png\n", "has no labels"),
        ("file,n,n\n1.png,1,2\n", "has the column 'n' twice"),
        ("file,n\n1.png,1\n2.png\n", "row 3 has 1 cells, and the header 2"),
        ("file,n\n1.png,1\n1.png,2\n", "names '1.png' twice"),
        ('file,n\n1.png,"1\n', "cannot read .* as CSV"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        labels_from_csv(table(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_bytes_of_another_encoding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("file,n\nä.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        labels_from_csv(path)
    with pytest.raises(DataError, match=r"cannot read .*none\.csv"):
        labels_from_csv(tmp_path / "none.csv")


def test_a_table_of_other_images_is_refused(tmp_path: Path) -> None:
    labels = labels_from_csv(table(tmp_path, "file,n\n1.png,1\n"))
    with pytest.raises(DataError, match=r"begins with '1\.png'"):
        labels.matched(["2.png"]).factor("n")
    with pytest.raises(DataError, match=r"has no column 'm': take one of n"):
        labels.matched(["1.png"]).factor("m")


def test_vehicles_have_the_factors_that_they_were_drawn_by() -> None:
    found = {factor.name: factor for factor in vehicle_factors(5, range(30))}
    assert len(found) == 12
    for row in range(30):
        drawn = factors_from_seed(5, row)
        assert found["body"].classes[int(found["body"].values[row])] == drawn.body
        heading = found["heading"].classes[int(found["heading"].values[row])]
        assert heading == ("right" if drawn.heading == 1 else "left")
        for name in found.keys() - {"body", "heading"}:
            assert found[name].values[row] == getattr(drawn, name)
            assert not found[name].classes


def test_rare_classes_are_left_out_and_few_images_refused() -> None:
    values = np.repeat([0.0, 1.0, 2.0], [50, 3, 50])
    found, why = measurable(Factor("maker", values, ("a", "b", "c")))
    assert why is None
    assert found.classes == ("a", "c")
    assert found.known.sum() == 100
    assert set(found.values[found.known].tolist()) == {0, 1}
    assert "fewer than two" in str(measurable(Factor("m", values[:52], ("a", "b", "c")))[1])
    assert "10 images have a value" in str(measurable(Factor("n", np.arange(10.0)))[1])
    assert "same in every image" in str(measurable(Factor("n", np.ones(100)))[1])


def test_a_table_with_semicolons_is_told_so(tmp_path: Path) -> None:
    path = table(tmp_path, "file;x\na.png;0,5\n")
    with pytest.raises(DataError, match="separates its columns by ';'"):
        labels_from_csv(path)


def test_numbers_whose_squares_overflow_are_left_out() -> None:
    factor = Factor("x", np.array([10.0 ** (300 + row % 9) for row in range(60)]))
    assert measurable(factor)[1] == "it has numbers beyond 1e+100, whose squares are no numbers"


def test_one_infinite_number_makes_no_classes_of_the_others() -> None:
    values = [*map(float, range(60)), math.inf]
    assert "numbers beyond" in str(measurable(Factor("x", np.array(values)))[1])
    names = [f"{row}.png" for row in range(61)]
    cells = {name: (str(value),) for name, value in zip(names, values, strict=True)}
    found = Labels("table.csv", ("x",), cells).matched(names).factor("x")
    assert found.classes == ()
    assert found.values.tolist() == values

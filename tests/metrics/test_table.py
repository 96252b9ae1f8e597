import csv
import io

import pytest

from tectum.metrics.table import ScoreTable


@pytest.fixture
def table():
    return ScoreTable(
        "tectum",
        ("mi", "rmse"),
        {
            "a_b": {"1": {"mi": 1.0, "rmse": 4.0}, "2": {"mi": 3.0, "rmse": 6.0}},
            "c": {"1": {"mi": 2.5, "rmse": 1.0}, "2": {"mi": 1.0, "rmse": 2345.6}},
        },
    )


def test_means_and_the_best_by_direction(table):
    assert table.mean("a_b") == {"mi": 2.0, "rmse": 5.0}
    assert table.best() == {"mi": "a_b", "rmse": "a_b"}  # more bits, fewer grey levels
    assert table.heads() == ["MI ↑", "RMSE ↓"]


def test_markdown(table):
    assert table.markdown() == (
        "| method | MI ↑ | RMSE ↓ |\n| --- | ---: | ---: |\n| a_b | **2.000** | **5.000** |\n| c | 1.750 | 1173 |\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(2345.6, "2346"), (12.3456, "12.35"), (0.0234567, "0.02346"), (6.2e-8, "0.00000"), (-6.2e-8, "0.00000")],
)
def test_numbers_have_four_digits_and_at_most_five_decimals(value, text):
    assert ScoreTable("tectum", ("mi",), {"a": {"1": {"mi": value}}}).rows()[0] == ["a", text]


def test_latex_escapes_names(table):
    assert r"a\_b & \textbf{2.000} & \textbf{5.000} \\" in table.latex()
    assert r"MI $\uparrow$ & RMSE $\downarrow$" in table.latex()


def test_csv_has_every_image_and_the_means(table):
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows[0] == ["method", "image", "mi", "rmse"]
    assert rows[2] == ["a_b", "2", "3.0", "6.0"]
    assert rows[3] == ["a_b", "mean", "2.0", "5.0"]
    assert len(rows) == 7


def test_json_content(table):
    content = table.to_dict()
    assert content["mean"] == {"mi": 2.0, "rmse": 5.0}
    assert content["images"]["1"] == {"mi": 1.0, "rmse": 4.0}
    assert content["methods"]["c"]["mean"]["mi"] == 1.75


def test_a_method_without_images_shows_dashes_and_is_never_best(table):
    empty = ScoreTable("tectum", table.keys, {"none": {}, **table.methods})
    assert empty.rows()[0] == ["none", "-", "-"]
    assert "none" not in empty.best().values()
    assert ScoreTable("tectum", ("mi",), {"none": {}}).best() == {}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_writes_a_picture(table, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    table.plot(tmp_path / f"plot.{suffix}")
    assert (tmp_path / f"plot.{suffix}").stat().st_size > 2000
    assert len(list(tmp_path.iterdir())) == 1

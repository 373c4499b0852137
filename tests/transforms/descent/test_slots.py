"""Optimizing pairs: what is saved, when each stops, and that no pair notices the others."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.as_gpu import AS_GPU
from support.pictures import noise, smooth

from transforms.descent import loop
from transforms.descent import slots as slots_module
from transforms.descent.settings import DEFAULT_OBJECTIVE, METHODS, STOP_REASONS, Descent
from transforms.descent.slots import Start, optimize_pairs
from transforms.losses import pixels
from transforms.losses.catalog import LOSSES
from transforms.losses.evaluate import Evaluator
from transforms.losses.networks.loaded import Networks
from transforms.losses.objective import parse_objective
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.plan import EvaluationError, Plan

pytestmark = pytest.mark.heavy

SIZE = 24, 32


def plan_of(objective, weights=None, precision="float32"):
    return Plan((), parse_objective(objective), precision=precision, weights={"vgg16_lpips": weights})


@pytest.fixture(scope="module")
def perceptual(lpips_weights):
    return ObjectiveFunction(plan_of(DEFAULT_OBJECTIVE, lpips_weights))


@pytest.fixture(scope="module")
def shallow(lpips_weights):
    """The first four of the network's thirteen layers, and pixels."""
    plan = plan_of("vgg_mse + fd_l1", lpips_weights)
    return ObjectiveFunction(dataclasses.replace(plan, vgg_layers=("relu1_2", "relu2_2")))


@pytest.fixture(scope="module")
def shallow_on_ncnn(shallow):
    return ObjectiveFunction(dataclasses.replace(shallow.plan, backend="ncnn"))


@pytest.fixture(scope="module")
def quick():
    """Pixels alone: no network."""
    return ObjectiveFunction(plan_of("mse + fd_l2"))


def blurred(image):
    return np.rint(tf.nn.avg_pool2d(image[np.newaxis].astype(np.float32), 3, 1, "SAME")[0]).astype(np.uint8)


def pair(kind, size=SIZE):
    """A start whose key is its kind."""
    target = smooth(*size)
    rng = np.random.default_rng(5)
    generated = {
        "noisy": np.clip(target + rng.normal(0, 20, target.shape), 0, 255).astype(np.uint8),
        "very noisy": np.clip(target + rng.normal(0, 80, target.shape), 0, 255).astype(np.uint8),
        "blurred": blurred(target),
        "unrelated": noise(1, *size),
        "upside down": target[::-1].copy(),
        "black": np.zeros_like(target),
        "one pixel": target.copy(),
        "one level": np.where(target < 255, target + 1, target).astype(np.uint8),
        "identical": target.copy(),
        "flat": np.full_like(target, 90),
    }[kind]
    if kind == "one pixel":
        generated[3, 4] ^= 8
    if kind == "flat":
        target = np.full_like(target, 119)
    return Start(kind, generated, target)


KINDS = ["noisy", "very noisy", "blurred", "unrelated", "upside down", "black", "one pixel", "one level", "flat"]


def optimize(starts, objective, slots=4, **descent):
    """Results by key."""
    return {result.key: result for result in optimize_pairs(starts, objective, Descent(**descent), slots)}


class TestDefaultObjective:
    @pytest.fixture(scope="class")
    def starts(self):
        return [pair(kind, (17, 29)) for kind in (*KINDS, "identical")]

    @pytest.fixture(scope="class", params=METHODS)
    def results(self, perceptual, starts, request):
        return optimize(starts, perceptual, method=request.param, max_steps=18)

    @pytest.fixture(scope="class")
    def evaluator(self, lpips_weights):
        return Evaluator(plan_of(DEFAULT_OBJECTIVE, lpips_weights))

    def test_is_never_worse_than_the_start_and_mostly_much_better(self, evaluator, starts, results):
        assert results.keys() == {start.key for start in starts}
        for result in results.values():
            assert result.objective_of_saved <= result.objective_initial, result.key
            assert result.objective_final <= result.objective_initial, result.key
            assert (result.image.dtype, result.image.shape) == (np.uint8, starts[0].target.shape)
        targets = np.stack([start.target for start in starts])
        for images, name in (
            ([start.generated for start in starts], "objective_initial"),
            ([results[start.key].image for start in starts], "objective_of_saved"),
        ):
            scored = evaluator(np.stack(images), targets)["objective"]
            expected = [getattr(results[start.key], name) for start in starts]
            np.testing.assert_allclose(scored, expected, rtol=1e-4, atol=1e-9)
        for kind in ("noisy", "very noisy", "black"):
            assert results[kind].objective_of_saved < 0.3 * results[kind].objective_initial, kind

    def test_an_identical_pair_stops_at_once(self, results):
        result = results["identical"]
        assert (result.stop_reason, result.steps) == ("zero_gradient", 0)
        assert result.objective_initial == result.objective_of_saved == 0
        np.testing.assert_array_equal(result.image, pair("identical", (17, 29)).target)


class TestSaved:
    def test_is_the_start_where_rounding_undoes_all(self, quick):
        # A level off at one pixel, and a first step of far less: rounded, it is the start again.
        start = pair("one pixel")
        start.generated[:] = start.target
        start.generated[0, 0, 0] ^= 1
        result = optimize([start], quick, method="sgd", learning_rate=1e-6, max_steps=1)["one pixel"]
        assert result.objective_final < result.objective_initial == result.objective_of_saved
        np.testing.assert_array_equal(result.image, start.generated)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("levels", [1, 9])
    def test_stays_within_the_budget(self, quick, method, levels):
        for start in map(pair, ("noisy", "black", "unrelated")):
            result = optimize([start], quick, method=method, max_steps=15, max_change=(levels + 0.5) / 255)[start.key]
            change = np.abs(result.image.astype(int) - start.generated)
            assert change.max() == levels

    def test_of_16_bits_starts_at_8_and_keeps_the_target(self, quick):
        start = pair("noisy")
        wide = Start("wide", start.generated * np.uint16(257) + np.uint16(100), start.target * np.uint16(257))
        results = optimize([start], quick, max_steps=5) | optimize([wide], quick, max_steps=5)
        np.testing.assert_array_equal(results["wide"].image, results["noisy"].image)
        assert results["wide"].objective_initial == results["noisy"].objective_initial
        floats = Start("floats", start.generated / np.float32(255), start.target / np.float32(255))
        np.testing.assert_array_equal(optimize([floats], quick, max_steps=5)["floats"].image, results["noisy"].image)
        # Pairs of both depths in one batch.
        both = optimize([start, wide], quick, max_steps=5)
        np.testing.assert_array_equal(both["wide"].image, both["noisy"].image)
        off = Start("off", start.generated, start.target * np.uint16(257) // 2)
        assert optimize([off], quick)["off"].objective_initial != results["noisy"].objective_initial


class TestStops:
    def test_at_once_for_an_identical_pair_in_bfloat16(self, lpips_weights):
        objective = ObjectiveFunction(plan_of(DEFAULT_OBJECTIVE, lpips_weights, "bfloat16"))
        results = optimize(map(pair, ("noisy", "identical", "blurred")), objective, slots=2, max_steps=20)
        assert (results["identical"].stop_reason, results["identical"].steps) == ("zero_gradient", 0)
        assert results["noisy"].objective_of_saved < 0.3 * results["noisy"].objective_initial

    @pytest.mark.parametrize("method", METHODS)
    def test_at_the_target(self, quick, method):
        reference = optimize([pair("noisy")], quick, method=method, trace_every=1)["noisy"]
        threshold = reference.trace[4][1]
        expected = next(step for step, value in reference.trace if value <= threshold)
        for limit in ({"target_loss": threshold}, {"target_ratio": threshold / reference.objective_initial + 1e-9}):
            result = optimize([pair("noisy")], quick, method=method, **limit)["noisy"]
            assert (result.stop_reason, result.steps) == ("target_reached", expected)
            assert result.objective_final <= threshold

    def test_at_a_target_that_the_start_has_reached(self, quick):
        result = optimize([pair("noisy")], quick, target_loss=1.0)["noisy"]
        assert (result.stop_reason, result.steps) == ("target_reached", 0)
        np.testing.assert_array_equal(result.image, pair("noisy").generated)

    def test_a_ratio_means_nothing_below_0(self, lpips_weights):
        objective = ObjectiveFunction(plan_of("mse - 0.5"))
        result = optimize([pair("noisy")], objective, method="adam", target_ratio=0.5, max_steps=3)["noisy"]
        assert result.stop_reason == "max_steps"

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("steps", [1, 9, 10, 11, 25])
    def test_after_the_last_step(self, quick, method, steps):
        result = optimize([pair("unrelated")], quick, method=method, max_steps=steps, rtol=0.0)["unrelated"]
        assert (result.stop_reason, result.steps) == ("max_steps", steps)

    def test_on_a_plateau(self, quick):
        descent = {"method": "adam", "rtol": 0.9, "patience": 7, "learning_rate": 1e-4, "trace_every": 1}
        result = optimize([pair("unrelated")], quick, **descent)["unrelated"]
        # One of them only looks at the best again, before it goes on at half the rate.
        assert (result.stop_reason, result.steps) == ("plateau", 7 + 1)
        values = [value for _, value in result.trace]
        assert values[5] == min(values[:5])

    def test_where_the_box_ends(self, quick):
        # Every pixel wants to be brighter than white, and the budget allows one level.
        start = Start("dark", np.full((*SIZE, 3), 100, np.uint8), np.full((*SIZE, 3), 255, np.uint8))
        result = optimize([start], quick, max_change=1 / 255, learning_rate=0.5)["dark"]
        assert (result.stop_reason, result.steps) == ("zero_gradient", 1)
        assert (result.image == 101).all()

    def test_reasons_are_explained(self):
        assert set(loop.REASONS.values()) == set(STOP_REASONS)


class TestNotFinite:
    def objective(self, monkeypatch, low, high, where="value"):
        """Mean square error; of images with a bright target, NaN while it is between two bounds."""

        def broken(pair):
            error = pixels.mse(pair)
            marked = tf.reduce_mean(pair.target, axis=(1, 2, 3)) > 0.9
            bad = marked & (error > low) & (error < high)
            return error + tf.where(bad, float("nan") if where == "value" else tf.sqrt(error * 0.0), 0.0)

        monkeypatch.setattr(pixels, "charbonnier", broken)
        return ObjectiveFunction(plan_of("charbonnier"))

    def starts(self):
        flat = np.full((*SIZE, 3), 200, np.uint8)
        rng = np.random.default_rng(0)
        off = np.clip(flat + rng.normal(0, 40, flat.shape), 0, 255).astype(np.uint8)
        return [Start("dark", off // 2, flat // 2), Start("bright", off, np.full_like(flat, 250))]

    @pytest.mark.parametrize("where", ["value", "gradient"])
    @pytest.mark.parametrize("method", METHODS)
    def test_goes_back_to_the_best_and_on_in_smaller_steps(self, monkeypatch, method, where):
        # A band that a step of full length lands in, and from the other side of which it is seen no more.
        descent = {"method": method, "trace_every": 1, "learning_rate": 0.05, "max_steps": 60}
        alone = optimize(self.starts(), self.objective(monkeypatch, 0, 0), **descent)
        hit = alone["bright"].trace[1][1]
        results = optimize(self.starts(), self.objective(monkeypatch, hit * 0.999, hit * 1.001, where), **descent)
        bright = results["bright"]
        assert (bright.trace[1][1] != bright.trace[1][1]) == (where == "value"), "the first step meets the band"
        assert bright.trace[2][1] == bright.objective_initial, "the second evaluates the best again"
        assert bright.trace[3][1] > hit, "the third is shorter"
        assert bright.objective_final < 0.3 * bright.objective_initial
        # Its neighbour knows of nothing.
        assert results["dark"].trace == alone["dark"].trace
        np.testing.assert_array_equal(results["dark"].image, alone["dark"].image)

    @pytest.mark.parametrize("method", METHODS)
    def test_gives_up_and_keeps_the_best(self, monkeypatch, method):
        descent = {"method": method, "trace_every": 1, "learning_rate": 0.05, "patience": 50}
        wall = 0.5 * optimize(self.starts(), self.objective(monkeypatch, 0, 0), **descent)["bright"].objective_initial
        result = optimize(self.starts(), self.objective(monkeypatch, -1, wall), **descent)["bright"]
        values = [value for _, value in result.trace]
        assert result.stop_reason == "non_finite"
        assert np.isnan(values).sum() == loop.MAX_NON_FINITE + 1
        assert result.objective_final == np.nanmin(values) > wall
        assert wall * 0.99 < result.objective_of_saved <= result.objective_initial

    def test_gives_up_at_once_where_the_start_is_not(self, monkeypatch):
        result = optimize(self.starts(), self.objective(monkeypatch, -1, 9))["bright"]
        assert (result.stop_reason, result.steps) == ("non_finite", 0)
        np.testing.assert_array_equal(result.image, self.starts()[1].generated)


class TestBackends:
    @pytest.mark.parametrize("method", METHODS)
    def test_reach_the_same(self, shallow, shallow_on_ncnn, method):
        starts = [pair(kind, (17, 21)) for kind in ("noisy", "unrelated", "identical")]
        results = [optimize(starts, objective, method=method, max_steps=15) for objective in (shallow, shallow_on_ncnn)]
        for expected, found in zip(*(result.values() for result in results), strict=True):
            assert found.objective_initial == pytest.approx(expected.objective_initial, rel=1e-5)
            assert found.objective_of_saved == pytest.approx(expected.objective_of_saved, rel=0.02)
            assert found.stop_reason == expected.stop_reason

    def test_a_pair_has_the_same_bits_in_any_company(self, shallow_on_ncnn):
        starts = [pair(kind, (16, 20)) for kind in KINDS]
        descent = {"method": "adam", "max_steps": 8, "target_ratio": 0.4}
        expected = optimize(starts, shallow_on_ncnn, slots=4, **descent)
        for key, result in optimize(starts[::-1], shallow_on_ncnn, slots=3, **descent).items():
            np.testing.assert_array_equal(result.image, expected[key].image, err_msg=key)


class TestCompany:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_pair_does_not_notice_the_others(self, shallow, method):
        """Alone, among all, in another slot, and after a refill."""
        starts = [pair(kind, (16, 20)) for kind in (*KINDS, "identical")]
        descent = {"method": method, "max_steps": 15, "target_ratio": 0.4, "trace_every": 1}
        expected = optimize(starts, shallow, slots=len(starts), **descent)
        assert len({result.steps for result in expected.values()}) > 2, "they leave at different times"
        for results in (
            optimize(starts[::-1], shallow, slots=3, **descent),
            optimize(starts[4:] + starts[:4], shallow, slots=4, **descent),
            *(optimize([start], shallow, slots=2, **descent) for start in starts[::3]),
        ):
            for key, result in results.items():
                same = expected[key]
                assert (result.steps, result.stop_reason) == (same.steps, same.stop_reason), key
                assert np.abs(result.image.astype(int) - same.image).max() <= 1, key
                np.testing.assert_allclose([v for _, v in result.trace], [v for _, v in same.trace], rtol=1e-3)

    def test_only_pairs_that_run_are_evaluated(self, monkeypatch):
        evaluated = []
        mse = pixels.mse

        def counting(pair):
            count = tf.numpy_function(
                lambda rows: evaluated.append(int(rows)) or np.float32(0), [tf.shape(pair.generated)[0]], tf.float32
            )
            return mse(pair) + tf.ensure_shape(count, [])

        monkeypatch.setattr(pixels, "charbonnier", counting)
        objective = ObjectiveFunction(plan_of("charbonnier"))
        descent = {"max_steps": 30, "target_ratio": 0.05, "rtol": 0.0, "method": "adam"}
        results = optimize(map(pair, KINDS), objective, slots=3, **descent)
        needed = sum(result.steps + 1 for result in results.values())
        # Rounded images are evaluated again: the best one, and the last one if it is another.
        assert needed + len(results) <= sum(evaluated) <= needed + 2 * len(results)
        assert max(evaluated) == 3

    def test_starts_are_taken_only_as_slots_get_free(self, quick):
        taken = []

        def queue():
            for number in range(12):
                taken.append(number)
                start = pair("noisy" if number % 3 else "identical")
                yield Start(number, start.generated, start.target)

        for done, result in enumerate(optimize_pairs(queue(), quick, Descent(max_steps=4), slots=3), start=1):
            assert result.key in taken
            assert len(taken) <= done + 3
        assert done == len(taken) == 12

    def test_nothing_comes_of_nothing(self, quick):
        assert optimize([], quick) == {}


class TestTrace:
    @pytest.mark.parametrize("method", METHODS)
    def test_holds_every_so_many_steps_and_the_last(self, quick, method):
        every = optimize([pair("noisy")], quick, method=method, max_steps=23, trace_every=1)["noisy"]
        assert [step for step, _ in every.trace] == list(range(every.steps + 1))
        assert every.trace[0][1] == every.objective_initial
        assert min(value for _, value in every.trace) == every.objective_final
        some = optimize([pair("noisy")], quick, method=method, max_steps=23, trace_every=5)["noisy"]
        assert some.trace == tuple(point for point in every.trace if point[0] % 5 == 0 or point[0] == every.steps)

    def test_is_empty_if_not_asked_for(self, quick):
        assert optimize([pair("noisy")], quick)["noisy"].trace == ()


class TestGraphs:
    @pytest.mark.parametrize("method", METHODS)
    def test_one_trace_each_whatever_the_sizes_and_numbers(self, monkeypatch, method):
        traces, mse = [], pixels.mse
        monkeypatch.setattr(pixels, "charbonnier", lambda pair: traces.append(1) or mse(pair))
        objective = ObjectiveFunction(plan_of("charbonnier"))
        for size, slots in ((SIZE, 4), ((16, 16), 1), ((20, 30), 3), (SIZE, 9)):
            starts = [pair(kind, size) for kind in (*KINDS, "identical")]
            optimize(starts, objective, slots, method=method, max_steps=6, target_ratio=0.5)
            # The descent's, with the gradient, and that of the value alone, for what was rounded.
            assert len(traces) == 2

    @pytest.mark.parametrize("method", METHODS)
    def test_xla_takes_the_graph_that_it_gets_on_a_gpu(self, quick, method):
        plan = plan_of("mse + fd_l2")
        on_gpu = ObjectiveFunction(plan, Networks(plan, AS_GPU))
        starts = [pair(kind) for kind in ("noisy", "identical", "blurred")]
        expected = optimize(starts, quick, method=method, max_steps=12, rtol=0.0)
        for key, result in optimize(starts, on_gpu, method=method, max_steps=12, rtol=0.0).items():
            assert (result.steps, result.stop_reason) == (expected[key].steps, expected[key].stop_reason)
            assert np.abs(result.image.astype(int) - expected[key].image).max() <= 1

    @pytest.mark.slow
    def test_a_gpu_sees_few_sizes_of_batches(self, monkeypatch):
        """XLA compiles for every one of them, which takes tens of seconds with a network."""
        sizes, advance = set(), slots_module._Engine.advance

        def recorded(engine, rows, running):
            sizes.add(rows.progress.stop.shape[0])
            return advance(engine, rows, running)

        monkeypatch.setattr(slots_module._Engine, "advance", recorded)
        plan = plan_of("mse")
        on_gpu = ObjectiveFunction(plan, Networks(plan, AS_GPU))
        starts = [dataclasses.replace(pair(kind), key=f"{kind} {n}") for n in range(2) for kind in KINDS]
        settings = {"max_steps": 30, "target_ratio": 0.3}
        expected = optimize(starts, ObjectiveFunction(plan), 16, **settings)
        sizes.clear()
        found = optimize(starts, on_gpu, 16, **settings)
        assert sizes <= {1, 2, 4, 8, 16}
        assert {key: result.stop_reason for key, result in found.items()} == {
            key: result.stop_reason for key, result in expected.items()
        }

    @pytest.mark.slow
    @pytest.mark.parametrize("network", ["", "vgg16_lpips", "alexnet_lpips"])
    def test_xla_compiles_every_loss(self, network, lpips_weights, alexnet_weights):
        """To the first steps that a CPU makes. All at once, for XLA takes ten seconds."""
        rows = (loss for loss in LOSSES.values() if loss.differentiable and not loss.part_of)
        names = [loss.name for loss in rows if loss.network == network]
        weights = {"vgg16_lpips": lpips_weights, "alexnet_lpips": alexnet_weights}
        plan = dataclasses.replace(plan_of(" + ".join(names)), weights=weights)
        objectives = [ObjectiveFunction(plan, Networks(plan, device)) for device in (None, AS_GPU)]
        start = pair("noisy", (max(objectives[0].smallest_side, 16),) * 2)
        results = [optimize([start], objective, max_steps=2, trace_every=1)["noisy"] for objective in objectives]
        expected, found = ([value for _, value in result.trace] for result in results)
        # Adam divides by the root of the gradient's square, which is not exact where a gradient is small.
        np.testing.assert_allclose(found, expected, rtol=1e-3)


class TestErrors:
    def test_no_slots(self, quick):
        with pytest.raises(ValueError, match="slots is 0; it must be 1 or more"):
            next(optimize_pairs([], quick, Descent(), 0))

    def test_want_of_memory(self, monkeypatch):
        def exhaust(pair):
            raise MemoryError("OOM")

        monkeypatch.setattr(pixels, "charbonnier", exhaust)
        objective = ObjectiveFunction(plan_of("charbonnier"))
        with pytest.raises(EvaluationError, match=r"MemoryError: .*OOM"):
            optimize([pair("noisy")], objective)

    def test_pairs_too_small_are_the_callers_mistake(self, perceptual):
        with pytest.raises(AssertionError, match="leaves out"):
            optimize([pair("noisy", (15, 40))], perceptual)

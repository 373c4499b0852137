"""Constants that SSIMULACRA 2's definition and its kernel share. Free of TensorFlow, as kernels are."""

import math

import numpy as np

OCTAVES = 6
# Below this, an octave is the last one.
SMALLEST_SIDE = 8
C2 = 0.0009

# The score falls as a power of a cubic in the weighted sum of the norms: the factors of the sum, its square and cube.
_SCALE = 0.9562382616834844
CUBIC = (2.326765642916932 * _SCALE, -0.020884521182843837 * _SCALE**2, 6.248496625763138e-05 * _SCALE**3)
EXPONENT = 0.6276336467831387

# From linear sRGB to what the three kinds of cones absorb, and what they absorb in the dark.
CONES = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.5518098665095536],
    ]
)
DARK = 0.0037930732552754493

# Lines: X, Y, B, six octaves of each. Columns: structure, new edges, lost edges, of the mean; the same of the 4-norm.
# fmt: off
_WEIGHTS = (
    0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0,
    0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752,
    0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0,
    0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0,
    0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053,
    0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0,
    0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262,
    0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264,
    225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985,
    176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408,
    0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0,
    0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0,
    95.1080498811086, 0.9863978034400682, 0.9834382792465353, 0.0012286405048278493, 171.2667255897307, 0.9807858872435379,  # noqa: E501
    0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537,
)
# fmt: on


def _truncated_cosines(sigma: float) -> np.ndarray:
    """The taps of libjxl's Gaussian, three cosines that fit it up to a radius.

    Charalampidis 2016, "Recursive implementation of the Gaussian filter using truncated cosine functions"; the numbers
    are those of its formulas.
    """
    radius = round(3.2795 * sigma + 0.2546)  # (57)
    omega = np.array([1, 3, 5]) * math.pi / (2 * radius)
    p = np.array([1, -1, 1]) / np.tan(omega / 2)  # (37)
    r = np.array([1, -1, 1]) * p**2 / np.sin(omega)  # (44)
    rho = np.exp(-((sigma * omega) ** 2) / 2) / radius  # (50)
    zeta = np.cross(p, r)  # (52)
    matrix = np.stack([p, r, zeta / zeta[2]])  # (56)
    beta = np.linalg.solve(matrix, [1, radius**2 - sigma**2, zeta @ rho / zeta[2]])  # (53)
    offsets = np.arange(1 - radius, radius)[:, np.newaxis]
    taps: np.ndarray = np.cos(offsets * omega) @ beta
    return taps


def _weights_by_octaves() -> np.ndarray:
    """For each number of octaves the weights [octaves, channels, norms], 0 for the octaves that are absent."""
    weights = np.zeros((OCTAVES + 1, OCTAVES, 3, 6))
    for octaves in range(1, OCTAVES + 1):
        used = np.reshape(_WEIGHTS[: 3 * octaves * 6], (3, octaves, 6))
        weights[octaves, :octaves] = used.transpose(1, 0, 2)
    return weights


TAPS = _truncated_cosines(sigma=1.5)
BY_OCTAVES = _weights_by_octaves()

"""Independent definitions of the losses, as the papers write them: float64, one pair, NumPy and SciPy.

Images are [H, W, 3] in [0, 1]. This module shares no code with the package and is not written for speed.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import correlate, correlate1d
from scipy.signal import convolve2d


def mae(generated, target):
    return np.abs(generated - target).mean()


def mse(generated, target):
    return ((generated - target) ** 2).mean()


def psnr(generated, target):
    with np.errstate(divide="ignore"):
        return 10 * np.log10(1 / mse(generated, target))


def psnr_y(generated, target):
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / ((_bt601(generated) - _bt601(target)) ** 2).mean())


def charbonnier(generated, target):
    return np.sqrt((generated - target) ** 2 + 1e-6).mean()


def sobel_l1(generated, target):
    return np.abs(_sobel(generated) - _sobel(target)).mean()


def sobel_l2(generated, target):
    return ((_sobel(generated) - _sobel(target)) ** 2).mean()


def fd_l1(generated, target):
    return sum(np.abs(np.diff(generated - target, axis=axis)).mean() for axis in (0, 1))


def fd_l2(generated, target):
    return sum((np.diff(generated - target, axis=axis) ** 2).mean() for axis in (0, 1))


def gdl(generated, target):
    return sum(
        np.abs(np.abs(np.diff(generated, axis=axis)) - np.abs(np.diff(target, axis=axis))).mean() for axis in (0, 1)
    )


def multiscale_fd(generated, target):
    return sum(fd_l1(generated[::stride, ::stride], target[::stride, ::stride]) for stride in (1, 2, 4, 8))


def tv(generated, target):
    return sum(np.abs(np.diff(generated, axis=axis)).mean() for axis in (0, 1))


def gmsd(generated, target):
    """The authors' GMSD.m line by line, on what MATLAB's rgb2gray makes of 8-bit images."""
    return _gms(generated, target).std(ddof=1)


def _gms(generated, target):
    maps = [
        _prewitt_magnitude(_matlab_same(_matlab_gray(x), np.full((2, 2), 0.25))[::2, ::2]) for x in (generated, target)
    ]
    return (2 * maps[0] * maps[1] + 170) / (maps[0] ** 2 + maps[1] ** 2 + 170)


def ssim(generated, target):
    luminance, contrast_structure = _ssim_terms(generated, target)
    return (luminance * contrast_structure).mean()


def ssim_y(generated, target):
    """BasicSR's `_ssim` of `bgr2ycbcr(..., y_only=True) * 255`."""
    return _ssim_of_levels(_bt601(generated), _bt601(target))


def ssim_luma(generated, target):
    return _ssim_of_levels(_matlab_gray(generated), _matlab_gray(target))


def _ssim_of_levels(x, y):
    return _ssim_map_of_levels(x, y).mean()


def _ssim_map_of_levels(x, y):
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x**2) - mean_x**2, _window(y**2) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


def ms_ssim(generated, target):
    product = np.ones(3)
    for octave, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if octave > 0:
            generated, target = _half(generated), _half(target)
        luminance, similarity = _ssim_terms(generated, target)
        if octave == 4:
            similarity = luminance * similarity
        product *= np.maximum(similarity.mean(axis=(0, 1)), 0) ** weight
    return product.mean()


def ciede2000(generated, target):
    return delta_e_2000(_lab(generated), _lab(target)).mean()


def ciede2000_p95(generated, target):
    return np.percentile(delta_e_2000(_lab(generated), _lab(target)), 95)


def delta_e_2000(one, other):
    """The formula of Sharma, Wu and Dalal 2005 in radians, with the hue difference as an angle between vectors."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    mean_chroma = (np.hypot(*np.moveaxis(one[..., 1:], -1, 0)) + np.hypot(*np.moveaxis(other[..., 1:], -1, 0))) / 2
    g = 0.5 * (1 - np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7)))
    p, q = ((1 + g) * lab[..., 1] + 1j * lab[..., 2] for lab in (one, other))
    c1, c2 = np.abs(p), np.abs(q)
    # The angle from one to the other in (-pi, pi], and the bisector of the smaller angle between them.
    turn = np.angle(q * np.conj(p))
    hue = np.where(c1 * c2 == 0, np.angle(p) + np.angle(q), np.angle(p) + turn / 2)
    # Opposite hues have two bisectors: the formula takes the mean of the angles in [0, 2 pi).
    opposite = np.abs(np.abs(turn) - np.pi) < 1e-9
    h1, h2 = np.angle(p) % (2 * np.pi), np.angle(q) % (2 * np.pi)
    turn, hue = np.where(opposite, h2 - h1, turn), np.where(opposite, (h1 + h2) / 2, hue)
    l_bar, c_bar = (one[..., 0] + other[..., 0]) / 2, (c1 + c2) / 2
    degree = np.pi / 180
    t = 1 - 0.17 * np.cos(hue - 30 * degree) + 0.24 * np.cos(2 * hue)
    t += 0.32 * np.cos(3 * hue + 6 * degree) - 0.20 * np.cos(4 * hue - 63 * degree)
    d_l = (other[..., 0] - one[..., 0]) / (1 + 0.015 * (l_bar - 50) ** 2 / np.sqrt(20 + (l_bar - 50) ** 2))
    d_c = (c2 - c1) / (1 + 0.045 * c_bar)
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2) / (1 + 0.015 * c_bar * t)
    theta = 30 * np.exp(-((((hue / degree) % 360 - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(c_bar**7 / (c_bar**7 + 25.0**7)) * np.sin(2 * theta * degree)
    return np.sqrt(np.maximum(d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h, 0))


def _lab(image):
    linear = np.where(image > 0.04045, (np.maximum(image, 0.04045) + 0.055) ** 2.4 / 1.055**2.4, image / 12.92)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    ratio = linear @ np.transpose(matrix) / [0.95047, 1.0, 1.08883]
    x, y, z = np.moveaxis(np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def flip(generated, target):
    """LDR-FLIP as the authors' Python code has it, with filters of two dimensions."""
    return flip_map(generated, target).mean()


def flip_map(generated, target):
    degree = 0.7 * 3840 / 0.7 * np.pi / 180
    one, other = _ycxcz(target), _ycxcz(generated)
    green, blue = (_hunt(_flip_xyz(np.array([[color]]))) for color in ([0.0, 1, 0], [0.0, 0, 1]))
    largest = _hyab(green, blue).item() ** 0.7
    difference = _hyab(*(_hunt(_flip_xyz(_seen(image, degree))) for image in (one, other))) ** 0.7
    above = 0.95 + (difference - 0.4 * largest) / (0.6 * largest) * 0.05
    color = np.where(difference < 0.4 * largest, 0.95 / (0.4 * largest) * difference, above)
    deviation = 0.5 * 0.082 * degree
    radius = int(np.ceil(3 * deviation))
    x, y = np.meshgrid(np.arange(-radius, radius + 1), np.arange(-radius, radius + 1))
    gauss = np.exp(-(x**2 + y**2) / (2 * deviation**2))
    changes = []
    for kernel in (-x * gauss, (x**2 / deviation**2 - 1) * gauss):
        kernel = np.where(kernel < 0, kernel / -kernel[kernel < 0].sum(), kernel / kernel[kernel > 0].sum())
        norms = [
            np.hypot(*(correlate((image[..., 0] + 16) / 116, k, mode="nearest") for k in (kernel, kernel.T)))
            for image in (one, other)
        ]
        changes.append(np.abs(norms[0] - norms[1]))
    return color ** (1 - np.sqrt(np.maximum(*changes) / np.sqrt(2)))


_FLIP_XYZ = np.array(
    [[10135552, 8788810, 4435075], [2613072 * 2, 8788810 * 2, 887015 * 2], [1425312 / 3, 8788810 / 3, 70074185 / 3]]
)
_FLIP_XYZ /= 24577794
_FLIP_WHITE = np.array([0.950428545, 1.0, 1.088900371])


def _flip_xyz(linear):
    return linear @ _FLIP_XYZ.T / _FLIP_WHITE


def _ycxcz(image):
    linear = np.where(image > 0.04045, ((np.maximum(image, 0.04045) + 0.055) / 1.055) ** 2.4, image / 12.92)
    x, y, z = np.moveaxis(_flip_xyz(linear), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _seen(ycxcz, degree):
    radius = int(np.ceil(3 * np.sqrt(0.04 / (2 * np.pi**2)) * degree))
    x, y = np.meshgrid(np.arange(-radius, radius + 1), np.arange(-radius, radius + 1))
    channels = []
    for channel, gaussians in enumerate((((1, 0.0047),), ((1, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))):
        squares = (x**2 + y**2) / degree**2
        kernel = sum(a * np.sqrt(np.pi / b) * np.exp(-(np.pi**2) * squares / b) for a, b in gaussians)
        channels.append(correlate(ycxcz[..., channel], kernel / kernel.sum(), mode="nearest"))
    y = (channels[0] + 16) / 116
    xyz = np.stack([y + channels[1] / 500, y, y - channels[2] / 200], axis=-1) * _FLIP_WHITE
    return np.clip(xyz @ np.linalg.inv(_FLIP_XYZ).T, 0, 1)


def _hunt(xyz):
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29), -1, 0)
    light = 116 * y - 16
    return np.stack([light, 0.01 * light * 500 * (x - y), 0.01 * light * 200 * (y - z)], axis=-1)


def _hyab(one, other):
    difference = one - other
    return np.abs(difference[..., 0]) + np.hypot(difference[..., 1], difference[..., 2])


def ssimulacra2(generated, target):
    """libjxl's ssimulacra2.cc step by step, with its recursive Gaussian."""
    images = [np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92) for x in (target, generated)]
    scales = []
    for octave in range(6):
        if min(images[0].shape[:2]) < 8:
            break
        if octave:
            images = [_half(image) for image in images]
        scales.append(_ssimulacra2_norms(*map(_xyb, images)))
    # By channel, then by octave, then by norm, then by map; the weights of absent octaves are not skipped.
    norms = [scale[m][n][c] for c in range(3) for scale in scales for n in range(2) for m in range(3)]
    error = 0.9562382616834844 * (np.array(_WEIGHTS.split()[: len(norms)], float) @ norms)
    error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
    return 100 - 10 * max(error, 0) ** 0.6276336467831387


# The 108 weights of libjxl in their order.
_WEIGHTS = """
    0 0.0007376606707406586 0 0 0.0007793481682867309 0 0 0.0004371155730107379 0 1.1041726426657346
    0.00066284834129271 0.00015231632783718752 0 0.0016406437456599754 0 1.8422455520539298 11.441172603757666 0
    0.0007989109436015163 0.000176816438078653 0 1.8787594979546387 10.94906990605142 0 0.0007289346991508072
    0.9677937080626833 0 0.00014003424285435884 0.9981766977854967 0.00031949755934435053 0.0004550992113792063 0 0
    0.0013648766163243398 0 0 0 0 0 7.466890328078848 0 17.445833984131262 0.0006235601634041466 0 0 6.683678146179332
    0.00037724407979611296 1.027889937768264 225.20515300849274 0 0 19.213238186143016 0.0011401524586618361
    0.001237755635509985 176.39317598450694 0 0 24.43300999870476 0.28520802612117757 0.0004485436923833408 0 0 0
    34.77906344483772 44.835625328877896 0 0 0 0 0 0 0 0 0.0008680556573291698 0 0 0 0 0 0.0005313191874358747 0
    0.00016533814161379112 0 0 0 0 0 0.0004179171803251336 0.0017290828234722833 0 0.0020827005846636437 0 0
    8.826982764996862 23.19243343998926 0 95.1080498811086 0.9863978034400682 0.9834382792465353 0.0012286405048278493
    171.2667255897307 0.9807858872435379 0 0 0 0.0005130064588990679 0 0.00010854057858411537
"""


def _ssimulacra2_norms(one, other):
    """By map the mean and the 4-norm of each channel."""
    mean_1, mean_2 = _jxl_blur(one), _jxl_blur(other)
    covariance = _jxl_blur(one * other) - mean_1 * mean_2
    variances = _jxl_blur(one**2) - mean_1**2 + _jxl_blur(other**2) - mean_2**2
    structure = 1 - (1 - (mean_1 - mean_2) ** 2) * (2 * covariance + 0.0009) / (variances + 0.0009)
    edges = (1 + np.abs(other - mean_2)) / (1 + np.abs(one - mean_1)) - 1
    maps = [np.maximum(errors, 0) for errors in (structure, edges, -edges)]
    return [(errors.mean(axis=(0, 1)), (errors**4).mean(axis=(0, 1)) ** 0.25) for errors in maps]


def _xyb(linear):
    bias = 0.0037930732552754493
    last = (0.24342268924547819, 0.20476744424496821)
    cones = np.array([[0.3, 1 - 0.078 - 0.3, 0.078], [0.23, 1 - 0.078 - 0.23, 0.078], [*last, 1 - sum(last)]])
    long, middle, short = np.moveaxis(np.cbrt(linear @ cones.T + bias) - np.cbrt(bias), -1, 0)
    x, y = (long - middle) / 2, (long + middle) / 2
    return np.stack([x * 14 + 0.42, y + 0.01, short - y + 0.55], axis=-1)


def _jxl_blur(image):
    return _jxl_gauss(_jxl_gauss(image).swapaxes(0, 1)).swapaxes(0, 1)


def _jxl_gauss(image, sigma=1.5):
    """libjxl's FastGaussian1D down the columns: three recursive filters whose sum is the Gaussian."""
    n = int(np.round(3.2795 * sigma + 0.2546))
    omega = np.pi / (2 * n) * np.array([1, 3, 5])
    p1, p3, p5 = np.array([1, -1, 1]) / np.tan(0.5 * omega)
    r1, r3, r5 = np.array([1, -1, 1]) * np.array([p1, p3, p5]) ** 2 / np.sin(omega)
    rho = np.exp(-0.5 * sigma**2 * omega**2) / n
    d13, d35, d51 = p1 * r3 - r1 * p3, p3 * r5 - r3 * p5, p5 * r1 - r5 * p1
    matrix = np.array([[p1, p3, p5], [r1, r3, r5], [d35 / d13, d51 / d13, 1]])
    beta = np.linalg.inv(matrix) @ [1, n**2 - sigma**2, d35 / d13 * rho[0] + d51 / d13 * rho[1] + rho[2]]
    padded = np.pad(image, [(2 * n, 2 * n), (0, 0), (0, 0)])
    total = np.zeros(image.shape)
    for b, w in zip(beta, omega, strict=True):
        before, previous = np.zeros((2, *image.shape[1:]))
        for row in range(1 - n, len(image)):
            inputs = padded[2 * n + row - n - 1] + padded[2 * n + row + n - 1]
            previous, before = -b * np.cos(w * (n + 1)) * inputs + 2 * np.cos(w) * previous - before, previous
            if row >= 0:
                total[row] += previous
    return total


def masked(name, generated, target, mask):
    """A loss on pixels within a mask, bool [H, W]: a window goes by its middle, a difference by both of its pixels."""

    def differences(image, inside=mask):
        both = (inside[1:] & inside[:-1], inside[:, 1:] & inside[:, :-1])
        return [np.diff(image, axis=axis)[both[axis]] for axis in (0, 1)]

    residual = generated - target
    inside = mask[5:-5, 5:-5]
    match name:
        case "mae":
            return np.abs(residual[mask]).mean()
        case "mse":
            return (residual[mask] ** 2).mean()
        case "psnr":
            return -10 * np.log10((residual[mask] ** 2).mean())
        case "psnr_y":
            return 10 * np.log10(255**2 / ((_bt601(generated) - _bt601(target))[mask] ** 2).mean())
        case "charbonnier":
            return np.sqrt(residual[mask] ** 2 + 1e-6).mean()
        case "sobel_l1":
            return np.abs(_sobel(residual)[:, mask]).mean()
        case "sobel_l2":
            return (_sobel(residual)[:, mask] ** 2).mean()
        case "fd_l1":
            return sum(np.abs(d).mean() for d in differences(residual))
        case "fd_l2":
            return sum((d**2).mean() for d in differences(residual))
        case "gdl":
            pairs = zip(differences(generated), differences(target), strict=True)
            return sum(np.abs(np.abs(g) - np.abs(t)).mean() for g, t in pairs)
        case "multiscale_fd":
            octaves = (differences(residual[::s, ::s], mask[::s, ::s]) for s in (1, 2, 4, 8))
            return sum(np.abs(d).mean() for octave in octaves for d in octave)
        case "tv":
            return sum(np.abs(d).mean() for d in differences(generated))
        case "gmsd":
            return _gms(generated, target)[mask[::2, ::2]].std(ddof=1)
        case "ssim":
            return np.multiply(*_ssim_terms(generated, target))[inside].mean()
        case "ssim_y":
            return _ssim_map_of_levels(_bt601(generated), _bt601(target))[inside].mean()
        case "ssim_luma":
            return _ssim_map_of_levels(_matlab_gray(generated), _matlab_gray(target))[inside].mean()
        case "ciede2000":
            return delta_e_2000(_lab(generated), _lab(target))[mask].mean()
        case "ciede2000_p95":
            return np.percentile(delta_e_2000(_lab(generated), _lab(target))[mask], 95)
        case "flip":
            return flip_map(generated, target)[mask].mean()
    raise ValueError(name)


def lpips_input(image):
    """The input of LPIPS' network: [-1, 1], scaled by constants of its own."""
    return (2 * image - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])


def keras_input(image):
    """The input of Keras' VGG16: [0, 255] minus ImageNet's mean. The channels stay RGB."""
    return 255 * image - np.array([123.68, 116.779, 103.939])


def vgg16_features(x, tensors, pool=None):
    """Features [h, w, C] of every layer, `relu1_1` to `pool5`, of an input [H, W, 3]; below 32 pixels `pool5` is empty.

    `tensors` holds `conv<block>_<number>.kernel` (HWIO, for RGB) and `.bias`; `pool` is a max-pooling unless given.
    """
    features = {}
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, convolutions + 1):
            kernel = tensors[f"conv{block}_{number}.kernel"].astype(np.float64)
            windows = sliding_window_view(np.pad(x, [(1, 1), (1, 1), (0, 0)]), (3, 3), axis=(0, 1))
            x = np.einsum("hwikl,klio->hwo", windows, kernel, optimize=True) + tensors[f"conv{block}_{number}.bias"]
            features[f"relu{block}_{number}"] = x = np.maximum(x, 0)
        features[f"pool{block}"] = x = (pool or _max_pool)(x)
    return features


def _max_pool(x):
    even = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    return np.maximum.reduce([even[::2, ::2], even[1::2, ::2], even[::2, 1::2], even[1::2, 1::2]])


def l2_pool(x):
    """DISTS' pooling of [H, W, C]: a 3x3 Hanning window over the squares of every second pixel, with zeros around."""
    window = np.outer(np.hanning(5)[1:-1], np.hanning(5)[1:-1])
    blurred = correlate(x**2, (window / window.sum())[:, :, np.newaxis], mode="constant")
    return np.sqrt(blurred[::2, ::2] + 1e-12)


def alexnet_features(x, tensors):
    """Features [h, w, C] of torchvision's AlexNet, `relu1` to `relu5`, of an input [H, W, 3].

    `tensors` holds `conv<number>.kernel` (HWIO, for RGB) and `.bias`.
    """
    features = {}
    for number, (stride, padding) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), start=1):
        if number in (2, 3):
            x = sliding_window_view(x, (3, 3), axis=(0, 1))[::2, ::2].max(axis=(3, 4))
        kernel = tensors[f"conv{number}.kernel"].astype(np.float64)
        padded = np.pad(x, [(padding, padding), (padding, padding), (0, 0)])
        windows = sliding_window_view(padded, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]
        x = np.einsum("hwikl,klio->hwo", windows, kernel, optimize=True) + tensors[f"conv{number}.bias"]
        features[f"relu{number}"] = x = np.maximum(x, 0)
    return features


def lpips(generated, target, heads):
    """LPIPS from the features of two images; `heads` holds the weights [C] of every compared layer."""
    return sum(maps.mean() for maps in lpips_maps(generated, target, heads).values())


def lpips_maps(generated, target, heads):
    """By layer [h, w]."""
    maps = {}
    for layer, weights in heads.items():
        unit = [f[layer] / (np.linalg.norm(f[layer], axis=2, keepdims=True) + 1e-10) for f in (generated, target)]
        maps[layer] = (unit[0] - unit[1]) ** 2 @ weights.astype(np.float64)
    return maps


def masked_lpips(maps, strides, mask):
    """LPIPS from its maps, weighted by the share of the pixels of every position that lie in a mask, bool [H, W]."""
    total = 0.0
    for layer, distances in maps.items():
        stride, share = strides[layer], np.zeros(distances.shape)
        for y, x in np.ndindex(share.shape):
            share[y, x] = mask[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride].mean()
        total += (share * distances).sum() / share.sum()
    return total


def dists(generated, target, alpha, beta):
    """DISTS from the maps [h, w, C] of two images, the images themselves first; one weight a channel, of any sum."""
    similarity, start = 0.0, 0
    for x, y in zip(generated, target, strict=True):
        mean_x, mean_y = x.mean(axis=(0, 1)), y.mean(axis=(0, 1))
        covariance = ((x - mean_x) * (y - mean_y)).mean(axis=(0, 1))
        texture = (2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6)
        structure = (2 * covariance + 1e-6) / (x.var(axis=(0, 1)) + y.var(axis=(0, 1)) + 1e-6)
        channels = slice(start, start + x.shape[2])
        similarity += alpha[channels] @ texture + beta[channels] @ structure
        start = channels.stop
    return 1 - similarity / (alpha.sum() + beta.sum())


def vgg_mse(generated, target, layers):
    return sum(((generated[layer] - target[layer]) ** 2).mean() for layer in layers)


def style(generated, target, layers):
    def gram(features):
        return np.einsum("hwi,hwj->ij", features, features) / (features.shape[0] * features.shape[1])

    return sum(((gram(generated[layer]) - gram(target[layer])) ** 2).mean() for layer in layers)


def _sobel(image):
    kernel = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
    # SciPy's mirror is TensorFlow's REFLECT: the border pixel is not repeated.
    return np.stack([correlate(image, k[:, :, np.newaxis], mode="mirror") for k in (kernel, kernel.T)])


def _bt601(image):
    return image @ np.array([65.481, 128.553, 24.966]) + 16


def _matlab_gray(image):
    levels = np.rint(255 * image)
    weights = np.linalg.inv([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])[0]
    return np.floor(levels @ weights + 0.5)


def _matlab_same(image, kernel):
    """conv2(image, kernel, 'same'): with an even kernel MATLAB drops the first row of the full result."""
    rows, columns = (side // 2 for side in kernel.shape)
    return convolve2d(image, kernel)[rows : rows + image.shape[0], columns : columns + image.shape[1]]


def _prewitt_magnitude(image):
    kernel = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]]) / 3
    return np.sqrt(_matlab_same(image, kernel) ** 2 + _matlab_same(image, kernel.T) ** 2)


def _ssim_terms(x, y):
    mean_x, mean_y = _window(x), _window(y)
    variances = _window(x * x) - mean_x**2 + _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return luminance, (2 * covariance + 9e-4) / (variances + 9e-4)


def _window(image):
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    return correlate1d(correlate1d(image, taps, axis=0), taps, axis=1)[5:-5, 5:-5]


def _half(image):
    odd = [(0, side % 2) for side in image.shape[:2]]
    image = np.pad(image, [*odd, (0, 0)], mode="symmetric")
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4

"""The image data sets: where their files come from, which of them are here, what classes they have.

CIFAR-10 and GTSRB are published as one large archive each. A part of it in the folder that
CARELAB_DATA names is enough: single batches of CIFAR-10, a selection of GTSRB. Nothing else ever
stands in for an archive, and each part has its own checksum.
"""

from __future__ import annotations

from dataclasses import replace

from carelab.data.fetching import RemoteFile, Source, file_status

__all__ = [
    "CIFAR10",
    "CIFAR10_CLASSES",
    "CIFAR10_TEST",
    "CIFAR10_TRAIN",
    "DIGITS",
    "DIGIT_CLASSES",
    "FASHION_CLASSES",
    "FASHION_MNIST",
    "GTSRB",
    "GTSRB_CLASSES",
    "GTSRB_SELECTION",
    "MNIST",
    "local_cifar10",
    "local_gtsrb",
]

_IDX_KINDS = ("images-idx3", "labels-idx1")
_MNIST_FOLDER = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION_FOLDER = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
)
_CIFAR10_ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_GTSRB_ARCHIVE = (
    "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/GTSRB-Training_fixed.zip"
)


def _idx_files(folder: str, address: str, *known: tuple[str, int]) -> tuple[RemoteFile, ...]:
    """The four files of MNIST and its relatives, with their checksums and sizes."""
    names = (f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in _IDX_KINDS)
    return tuple(
        RemoteFile(path=f"{folder}/{name}", address=f"{address}/{name}", sha256=sha256, size=size)
        for name, (sha256, size) in zip(names, known, strict=True)
    )


MNIST = Source(
    name="mnist",
    description="MNIST handwritten digits, 60000 + 10000 images of 28 x 28",
    licence="none given at the source; usually stated as CC BY-SA 3.0 (LeCun, Cortes)",
    files=_idx_files(
        "mnist",
        _MNIST_FOLDER,
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
    ),
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    description="Fashion-MNIST pictures of clothes, 60000 + 10000 images of 28 x 28",
    licence="MIT (Zalando SE)",
    files=_idx_files(
        "fashion_mnist",
        _FASHION_FOLDER,
        ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
        ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
        ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
        ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148),
    ),
)

CIFAR10 = Source(
    name="cifar10",
    description="CIFAR-10 photographs, 50000 + 10000 images of 3 x 32 x 32, or the batches present",
    licence="none stated by the authors; free for research with citation (Krizhevsky 2009)",
    files=(
        RemoteFile(
            path="cifar10/cifar-10-binary.tar.gz",
            address=_CIFAR10_ARCHIVE,
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            size=170052171,
        ),
    ),
)

# The archive's members, as files of their own.
CIFAR10_TRAIN = tuple(
    RemoteFile(
        path=f"cifar10/data_batch_{number}.bin",
        address=_CIFAR10_ARCHIVE,
        sha256=sha256,
        size=30730000,
    )
    for number, sha256 in enumerate(
        (
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
        start=1,
    )
)
CIFAR10_TEST = (
    RemoteFile(
        path="cifar10/test_batch.bin",
        address=_CIFAR10_ARCHIVE,
        sha256="8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        size=30730000,
    ),
    RemoteFile(
        path="cifar10/test_batch_first1000.bin",
        address=_CIFAR10_ARCHIVE,
        sha256="8314c96d7cd65618193bab23acdd5d4c4af15bf6dd00a1781d55beedf3be1ef5",
        size=3073000,
    ),
)

GTSRB = Source(
    name="gtsrb",
    description="GTSRB traffic signs, 26640 training images of 43 signs, or a selection of them",
    licence="free for research with citation (INI, Ruhr-Universitaet Bochum); no formal licence",
    files=(
        RemoteFile(
            path="gtsrb/GTSRB-Training_fixed.zip",
            address=_GTSRB_ARCHIVE,
            sha256="df4144942083645bd60b594de348aa6930126c3e0e5de09e39611630abf8455a",
            size=187490228,
        ),
    ),
)

# 2814 images of the archive under their own names: 43 signs, 472 tracks.
GTSRB_SELECTION = RemoteFile(
    path="gtsrb/GTSRB-Training_subset.zip",
    address=_GTSRB_ARCHIVE,
    sha256="5a8bcb98959d2d3333cdd6c406cfb8c0efcb85d6e7d01a307e3ca7c62c71b046",
    size=19416887,
)

DIGITS = Source(
    name="digits",
    description="handwritten digits bundled with scikit-learn, 1797 images of 8 x 8",
    licence="CC BY 4.0 (UCI)",
)

DIGIT_CLASSES = tuple(str(digit) for digit in range(10))
FASHION_CLASSES = (
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
GTSRB_CLASSES = (
    *("speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70"),
    *("speed limit 80", "end of speed limit 80", "speed limit 100", "speed limit 120"),
    *("no overtaking", "no overtaking by lorries", "priority at the next crossing"),
    *("priority road", "give way", "stop", "no vehicles", "no lorries", "no entry", "danger"),
    *("bend to the left", "bend to the right", "double bend", "uneven road", "slippery road"),
    *("road narrows on the right", "road works", "traffic lights", "pedestrians", "children"),
    *("cyclists", "snow or ice", "wild animals", "end of all restrictions", "turn right ahead"),
    *("turn left ahead", "straight on only", "straight on or right", "straight on or left"),
    *("keep right", "keep left", "roundabout", "end of no overtaking"),
    *("end of no overtaking by lorries",),
)


def local_cifar10() -> Source:
    """CIFAR-10 as it can be had on this machine: the batches in CARELAB_DATA, or the archive.

    Batches count where at least one for training and one for testing lie there; all that lie
    there are taken, and the whole test batch rather than its first 1000 images. The archive comes
    first where it lies in CARELAB_DATA or in the cache, because it holds everything.

    Returns:
        The source narrowed to the files to use, training batches first, or to the archive.

    Raises:
        DataError: CARELAB_DATA names a folder that does not exist.

    Example:
        >>> from carelab.data.image_sources import local_cifar10
        >>> local_cifar10().name
        'cifar10'
    """
    train, test = _given(CIFAR10_TRAIN), _given(CIFAR10_TEST)[:1]
    if _is_here(CIFAR10) or not (train and test):
        return CIFAR10
    return replace(CIFAR10, files=train + test)


def local_gtsrb() -> Source:
    """GTSRB as it can be had on this machine: the archive, or its selection in CARELAB_DATA.

    The archive comes first where it lies in CARELAB_DATA or in the cache.

    Returns:
        The source narrowed to the one file to use.

    Raises:
        DataError: CARELAB_DATA names a folder that does not exist.

    Example:
        >>> from carelab.data.image_sources import local_gtsrb
        >>> len(local_gtsrb().files)
        1
    """
    selection = _given((GTSRB_SELECTION,))
    return GTSRB if _is_here(GTSRB) or not selection else replace(GTSRB, files=selection)


def _is_here(source: Source) -> bool:
    return all(status.status == "ok" for status in file_status(source, verify=False))


def _given(files: tuple[RemoteFile, ...]) -> tuple[RemoteFile, ...]:
    """Those of the files that lie in the folder named by CARELAB_DATA."""
    source = Source(name="", description="", licence="", files=files)
    places = [status.found for status in file_status(source, verify=False)]
    return tuple(f for f, place in zip(files, places, strict=True) if place == "CARELAB_DATA")

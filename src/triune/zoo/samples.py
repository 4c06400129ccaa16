"""Sample pictures from scikit-image's package."""

from triune.zoo.packages import Package, PackageCache, Report, silent

PACKAGE = Package(
    name="scikit-image",
    version="0.26.0",
    filename="scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    licence="BSD-3-Clause, the pictures CC0",
)


def read_picture(name: str, cache: PackageCache, report: Report = silent) -> bytes:
    """Read a PNG file: "chelsea" (a cat) or "coffee" (a cup of espresso). Raises the errors of `PackageCache.read`."""
    (content,) = cache.read(PACKAGE, [f"skimage/data/{name}.png"], report)
    return content

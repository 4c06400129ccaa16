"""What the import changes and what it does not, each in a process of its own: gates are open for a whole process."""

import subprocess
import sys
import textwrap

MODEL = """
import numpy as np
import coremltools as ct
from coremltools.converters.mil import Builder as mb

def predict():
    @mb.program(input_specs=[mb.TensorSpec(shape=(2,))])
    def program(x):
        return mb.relu(x=x, name="y")
    model = ct.convert(program, convert_to="mlprogram")
    return model.predict({"x": np.array([-1.0, 1.0])})["y"].tolist()
"""


def run(script: str) -> str:
    """Runs a script, with `predict` defined where it says MODEL, and gives what it printed."""
    text = textwrap.dedent(script).replace("MODEL", MODEL)
    done = subprocess.run([sys.executable, "-W", "always", "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_before_coremltools() -> None:
    said = run("""
        import triune.coreml.anywhere
        MODEL
        from coremltools.models.utils import _is_macos, _macos_version
        assert predict() == [0, 1]
        assert _is_macos() and _macos_version() >= (15, 0)
        assert ct.libcoremlpython._MLModelProxy.maximum_supported_specification_version() == 10
    """)
    assert said.count("coremltools now predicts with Triune's runtime") == 1
    assert "Failed to load _ML" not in said


def test_after_coremltools_and_what_was_imported_by_name() -> None:
    run("""
        MODEL
        from coremltools.models.utils import _is_macos, _macos_version
        from coremltools.converters.mil import testing_utils
        from coremltools.models import model
        from coremltools.models.ml_program.experimental import compute_plan_utils
        assert not _is_macos() and _macos_version() == ()
        assert model._MLModelProxy is None and compute_plan_utils._MLComputePlanRemoteProxy is None
        assert not testing_utils._IS_MACOS
        import triune.coreml.anywhere
        assert _is_macos() and _macos_version() >= (15, 0)
        assert compute_plan_utils._MLComputePlanRemoteProxy is not None
        assert testing_utils._IS_MACOS
        assert predict() == [0, 1]
    """)


def test_twice_is_once() -> None:
    said = run("""
        from triune.coreml import anywhere
        import coremltools
        module = coremltools.libcoremlpython
        assert anywhere.install() and anywhere.install("reference")
        assert coremltools.libcoremlpython is module and anywhere.is_installed()
    """)
    assert said.count("coremltools now predicts") == 1


def test_the_way_back() -> None:
    run("""
        import platform, sys
        machine = platform.machine
        from triune.coreml import anywhere
        MODEL
        from coremltools.converters.mil import testing_utils
        from coremltools.models import model, compute_device
        from coremltools.models.ml_program.experimental import compute_plan_utils
        import pytest
        assert predict() == [0, 1]
        for _ in range(2):
            anywhere.uninstall()
        assert not anywhere.is_installed()
        assert "coremltools.libcoremlpython" not in sys.modules
        assert not ct.utils._is_macos() and ct.utils._macos_version() == ()
        assert platform.machine is machine
        assert model._MLModelProxy is None and compute_device._MLNeuralEngineComputeDeviceProxy is None
        assert compute_plan_utils._MLComputePlanRemoteProxy is None
        assert not testing_utils._IS_MACOS
        with pytest.raises(Exception, match="Unable to load CoreML.framework|10.13"):
            predict()
        with anywhere.installed():
            assert predict() == [0, 1]
            with anywhere.installed():
                pass
            assert anywhere.is_installed()
        assert not anywhere.is_installed()
    """)


def test_only_coremltools_is_told_of_another_machine() -> None:
    run("""
        import platform
        true = platform.machine()
        import triune.coreml.anywhere
        assert platform.machine() == true
        names = {"__name__": "coremltools.test.any", "platform": platform}
        exec("machine = platform.machine()", names)
        assert names["machine"] == "arm64"
    """)


def test_the_reference_computes_when_asked_to() -> None:
    run("""
        import sys
        from triune.coreml import anywhere
        anywhere.uninstall()
        anywhere.install("reference")
        MODEL
        assert predict() == [0, 1]
        assert "triune.coreml.interpreter" in sys.modules and "triune.coreml.onnx_executor" not in sys.modules
    """)


def test_nothing_changes_unless_it_is_imported() -> None:
    run("""
        import triune.coreml, triune.coreml.model, triune.coreml.pytest_plugin
        import sys
        assert "triune.coreml.anywhere" not in sys.modules and "coremltools" not in sys.modules
        import coremltools as ct
        assert not ct.utils._is_macos()
    """)


def test_on_apple_systems_it_does_nothing_and_says_so() -> None:
    said = run("""
        import sys
        sys.platform = "darwin"
        from triune.coreml import anywhere
        assert "coremltools" not in sys.modules
        assert not anywhere.is_installed() and not anywhere.install()
        anywhere.uninstall()
    """)
    assert "this is an Apple system" in said


def test_without_coremltools_it_says_how_to_get_it() -> None:
    said = run("""
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "coremltools" else find(name, *rest)
        from triune.core.errors import UnsupportedError
        try:
            import triune.coreml.anywhere
        except UnsupportedError as error:
            print(error)
    """)
    assert "pip install 'triune[coreml]'" in said

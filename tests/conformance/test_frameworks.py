"""Models of other frameworks, by their own exporters. One that is not installed is skipped: its extra installs it."""

import locale
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import triune
from support.graphs import answers
from triune.core.errors import InvalidArgumentError, UnsupportedError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 4)).astype(np.float32)
LABELS = np.digitize(X[:, 0] + X[:, 1] * X[:, 2], [-0.5, 0.5])
TARGETS = X @ np.array([1, 2, 3, 4], np.float32)


def has_english_locale() -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "en_US.UTF-8")
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return True


def agrees(notes: Any, title: str) -> None:
    (note,) = [note for note in notes if f"the export differs from {title} by" in note]
    assert float(note.split(" by ")[1].split(" ")[0]) < 1e-5


@pytest.fixture(name="torch")
def _torch() -> Any:
    pytest.importorskip("onnxscript", reason="pip install 'triune[torch]'")
    return pytest.importorskip("torch", reason="pip install 'triune[torch]'")


@pytest.mark.timeout(600)
def test_a_module_keeps_its_names_and_free_sizes(torch: Any, tmp_path: Path) -> None:
    body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8))
    target = tmp_path / "m.onnx"
    done = triune.convert(body, target, inputs={"input": X[:2]}, shapes={"input": ((1, 8), 4)}, verify=True)
    agrees(done.notes, "PyTorch")
    model = onnx.load(str(target))
    assert [node.name.partition("/")[0] for node in model.graph.node] == ["0", "1", "2"]
    with torch.no_grad():
        expected = body(torch.from_numpy(X[:5])).numpy()
    np.testing.assert_allclose(answers(model, {"input": X[:5]})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.timeout(600)
def test_programs_and_files(torch: Any, tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(4, 3), (torch.from_numpy(X[:2]),))
    torch.export.save(program, tmp_path / "m.pt2")
    for source in (program, tmp_path / "m.pt2"):
        agrees(triune.convert(source, tmp_path / "m.onnx", verify=True).notes, "PyTorch")


@pytest.mark.timeout(600)
def test_what_cannot_be_exported_names_the_layer(torch: Any, tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.bessel_j0(x)

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), Odd())
    with pytest.raises(UnsupportedError, match=r"cannot convert layer '1' \(.*Odd\), aten.special_bessel_j0"):
        triune.convert(module, tmp_path / "m.onnx", inputs={"input": X[:2]})
    with pytest.raises(InvalidArgumentError, match="the inputs of Sequential are input; 'input' is missing"):
        triune.convert(module, tmp_path / "m.onnx")


@pytest.mark.timeout(600)
def test_keras_saved_models_and_tflite(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx", reason="pip install 'triune[tensorflow]'")
    tensorflow = pytest.importorskip("tensorflow", reason="pip install 'triune[tensorflow]'")
    keras = pytest.importorskip("keras", reason="pip install 'triune[tensorflow]'")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
    agrees(triune.convert(model, tmp_path / "m.onnx", verify=True).notes, "Keras")
    model.save(tmp_path / "m.keras")
    agrees(triune.convert(tmp_path / "m.keras", tmp_path / "m.onnx", verify=True).notes, "Keras")
    model.export(tmp_path / "saved", verbose=False)
    agrees(triune.convert(tmp_path / "saved", tmp_path / "m.onnx", verify=True).notes, "TensorFlow")
    (tmp_path / "m.tflite").write_bytes(tensorflow.lite.TFLiteConverter.from_keras_model(model).convert())
    agrees(triune.convert(tmp_path / "m.tflite", tmp_path / "m.onnx", verify=True).notes, "TensorFlow Lite")


@pytest.mark.timeout(600)
def test_jax(tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx", reason="pip install 'triune[jax]'")
    jax = pytest.importorskip("jax", reason="pip install 'triune[jax]'")

    def gated(x: Any, w: Any) -> Any:
        return jax.nn.sigmoid(x @ w) * x

    for shapes in ({}, {"x": ((1, 8), 4)}):
        given = {"x": X[:2], "w": X[:4]}
        agrees(triune.convert(gated, tmp_path / "m.onnx", inputs=given, shapes=shapes, verify=True).notes, "JAX")
    with pytest.raises(InvalidArgumentError, match="the inputs of the function are x, w"):
        triune.convert(gated, tmp_path / "m.onnx", inputs={"x": X[:2]})
    # Functions that are jitted, or use what JAX's arrays alone have; the function itself goes on to work.
    for function in (jax.jit(jax.numpy.exp), lambda x: x.at[0].set(3.0)):
        notes = triune.convert(function, tmp_path / "m.onnx", inputs={"x": X[:2]}, verify=True).notes
        agrees(notes, "JAX")
        assert function(jax.numpy.asarray(X[:2])).shape == (2, 4)


@pytest.mark.timeout(600)
def test_scikit_learn(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="pip install 'triune[sklearn]'")
    skops = pytest.importorskip("skops.io", reason="pip install 'triune[sklearn]'")
    from sklearn.cluster import DBSCAN
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
    from sklearn.svm import SVC, SVR, LinearSVC

    models = [
        (make_pipeline(StandardScaler(), RandomForestClassifier(5)), LABELS),
        (GradientBoostingRegressor(n_estimators=5), TARGETS),
        (HistGradientBoostingClassifier(max_iter=5), LABELS),
        (make_pipeline(SimpleImputer(), PolynomialFeatures(), LogisticRegression()), LABELS),
        (SVC(), LABELS),
        (LinearSVC(), LABELS),
        (make_pipeline(StandardScaler(), LinearSVC()), LABELS > 0),
        (SVR(), TARGETS),
    ]
    for model, targets in models:
        agrees(triune.convert(model.fit(X, targets), tmp_path / "m.onnx", verify=True).notes, "scikit-learn")
    # Of two classes, skl2onnx gives other probabilities.
    two = LinearDiscriminantAnalysis().fit(X, LABELS > 0)
    for verify in (None, True):
        with pytest.raises(InvalidArgumentError, match="gives other answers than scikit-learn: 'probabilities'"):
            triune.convert(two, tmp_path / "m.onnx", verify=verify)
    triune.convert(two, tmp_path / "m.onnx", verify=False)
    skops.dump(models[3][0], tmp_path / "m.skops")
    agrees(triune.convert(tmp_path / "m.skops", tmp_path / "m.onnx", verify=True).notes, "scikit-learn")
    if pytest.importorskip("coremltools") is not None:
        target = tmp_path / "m.mlpackage"
        assert triune.convert(models[0][0], target, shapes={"x": (3, 4)}, verify=True).path == target
    with pytest.raises(UnsupportedError, match="sklearn.cluster._dbscan.DBSCAN"):
        triune.convert(make_pipeline(StandardScaler(), DBSCAN()).fit(X), tmp_path / "m.onnx")
    skops.dump(make_pipeline(FunctionTransformer(agrees), LogisticRegression()), tmp_path / "code.skops")
    with pytest.raises(InvalidArgumentError, match="has types that skops does not know as harmless: .*agrees"):
        triune.convert(tmp_path / "code.skops", tmp_path / "m.onnx")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosted_trees(library: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxmltools", reason=f"pip install 'triune[{library}]'")
    trees = pytest.importorskip(library, reason=f"pip install 'triune[{library}]'")
    is_xgboost = library == "xgboost"
    title = "XGBoost" if is_xgboost else "LightGBM"
    kinds = (trees.XGBClassifier, trees.XGBRegressor) if is_xgboost else (trees.LGBMClassifier, trees.LGBMRegressor)
    for kind, targets in ((kinds[0], LABELS), (kinds[0], LABELS > 0), (kinds[1], TARGETS)):
        model = kind(n_estimators=5).fit(X, targets)
        agrees(triune.convert(model, tmp_path / "m.onnx", inputs={"x": X[:50]}, verify=True).notes, title)
        for suffix in (".json", ".ubj") if is_xgboost else (".txt",):
            path = tmp_path / f"m{suffix}"
            (model if is_xgboost else model.booster_).save_model(path)
            agrees(triune.convert(path, tmp_path / "m.onnx", verify=True).notes, title)
    if is_xgboost:
        stopping = trees.XGBRegressor(n_estimators=50, early_stopping_rounds=1, learning_rate=1.0)
        stopping.fit(X[:40], TARGETS[:40], eval_set=[(X[40:], TARGETS[40:])], verbose=False)
        assert stopping.best_iteration + 1 < stopping.get_booster().num_boosted_rounds()
        for model in (stopping, stopping.get_booster()):
            agrees(triune.convert(model, tmp_path / "m.onnx", inputs={"x": X[:50]}, verify=True).notes, title)
    else:
        for labels in (LABELS + 1, np.where(LABELS > 0, 1, -1), np.array(["low", "middle", "high"])[LABELS]):
            model = kinds[0](n_estimators=5).fit(X, labels)
            agrees(triune.convert(model, tmp_path / "m.onnx", inputs={"x": X[:50]}, verify=True).notes, title)
            session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
            assert np.array_equal(session.run(["label"], {"x": X})[0], model.predict(X))
            assert not any("no labels" in note for note in triune.convert(model, tmp_path / "m.onnx").notes)
            model.booster_.save_model(tmp_path / "m.txt")
            for unlabelled in (model.booster_, tmp_path / "m.txt"):
                notes = triune.convert(unlabelled, tmp_path / "m.onnx").notes
                assert any(note.startswith("a Booster or .txt of LightGBM has no labels of classes") for note in notes)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "other.txt").write_text("hello")
    with pytest.raises(InvalidArgumentError, match=f"is no model of {title}"):
        triune.convert(tmp_path / ("other.json" if is_xgboost else "other.txt"), tmp_path / "m.onnx")


WITH_NAN = np.where(np.arange(X.size).reshape(X.shape) % 5 == 1, np.nan, X).astype(np.float32)


@pytest.mark.timeout(600)
def test_missing_values_of_scikit_learn(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="pip install 'triune[sklearn]'")
    from sklearn.ensemble import BaggingRegressor, ExtraTreesRegressor, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeRegressor

    for fitted_on in (WITH_NAN, X):
        for model, targets in (
            (DecisionTreeRegressor(max_depth=4), TARGETS),
            (ExtraTreesRegressor(5, max_depth=4, random_state=0), TARGETS),
            (BaggingRegressor(DecisionTreeRegressor(max_depth=4), 3, random_state=0), TARGETS),
            (RandomForestClassifier(5, max_depth=4, random_state=0), LABELS),
            (make_pipeline(SimpleImputer(), Ridge()), TARGETS),
        ):
            agrees(triune.convert(model.fit(fitted_on, targets), tmp_path / "m.onnx").notes, "scikit-learn")
            found = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": WITH_NAN})
            right = model.predict_proba(WITH_NAN) if len(found) > 1 else model.predict(WITH_NAN)
            np.testing.assert_allclose(found[-1].reshape(right.shape), right, atol=1e-5)
    # skl2onnx leaves out the columns that say what was missing.
    for last, reason in (
        (Ridge(), "gives other answers than scikit-learn on rows with NaN"),
        (tree(), "cannot compute"),
    ):
        model = make_pipeline(SimpleImputer(add_indicator=True), last).fit(WITH_NAN, TARGETS)
        with pytest.raises(InvalidArgumentError, match=reason):
            triune.convert(model, tmp_path / "m.onnx")


def tree() -> Any:
    """A tree that reads the columns that say what was missing."""
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(20, max_depth=6, random_state=0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", ["onnx", "mlpackage"])
def test_an_input_that_is_an_output_keeps_its_name(torch: Any, tmp_path: Path, suffix: str) -> None:
    class Both(torch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return y + x, x

    target = tmp_path / f"m.{suffix}"
    done = triune.convert(Both(), target, inputs={"x": X[:2], "y": X[2:4]}, verify=True)
    agrees(done.notes, "PyTorch")
    found = triune.predict(target, {"x": X[:2], "y": X[2:4]}, "cpu")
    assert [each.tolist() for each in found.values()] == [(X[:2] + X[2:4]).tolist(), X[:2].tolist()]


@pytest.mark.timeout(600)
def test_categories_of_scikit_learn_are_whole_numbers(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="pip install 'triune[sklearn]'")
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    numbers = np.random.default_rng(0).integers(0, 4, X.shape).astype(np.float32)
    for unknown in ("ignore", "error"):
        encoder = OneHotEncoder(handle_unknown=unknown, sparse_output=False)
        model = make_pipeline(encoder, Ridge()).fit(numbers, TARGETS)
        notes = triune.convert(model, tmp_path / "m.onnx").notes
        agrees(notes[:1], "scikit-learn")
        said = ["on rows of numbers with fractions" in note for note in notes[1:]]
        assert said == ([True] if unknown == "ignore" else [])
        (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": numbers})
        np.testing.assert_allclose(found.ravel(), model.predict(numbers), atol=1e-4)


@pytest.mark.timeout(600)
def test_zeros_that_lightgbm_takes_for_missing_are_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxmltools", reason="pip install 'triune[lightgbm]'")
    trees = pytest.importorskip("lightgbm", reason="pip install 'triune[lightgbm]'")
    sparse = np.where(np.abs(X) < 0.5, 0, X)
    model = trees.LGBMRegressor(n_estimators=5, zero_as_missing=True, verbose=-1).fit(sparse, TARGETS)
    with pytest.raises(InvalidArgumentError, match="gives other answers than LightGBM on rows with zeros"):
        triune.convert(model, tmp_path / "m.onnx")


@pytest.mark.timeout(600)
@pytest.mark.skipif(not has_english_locale(), reason="ONNX Runtime's StringNormalizer needs the locale en_US.UTF-8")
@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
@pytest.mark.parametrize("kind", [str, bytes])
def test_texts_of_scikit_learn_are_compared_as_rows_and_as_a_column(
    tmp_path: Path, shape: tuple[int, ...], kind: type
) -> None:
    pytest.importorskip("skl2onnx", reason="pip install 'triune[sklearn]'")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def converted(texts: list[str]) -> Any:
        model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, np.arange(len(texts)) % 3)
        given = np.array([each if kind is str else each.encode() for each in texts], np.object_).reshape(shape)
        return triune.convert(model, tmp_path / "m.onnx", inputs={"x": given})

    agrees(converted(["red apple", "two trees", "green grass", "blue sky"]).notes, "scikit-learn")
    # skl2onnx takes words with other letters apart.
    with pytest.raises(InvalidArgumentError, match="gives other answers than scikit-learn"):
        converted(["un café noir", "deux thés verts", "über die Straße", "plain words only"])


@pytest.mark.parametrize("loss", ["modified_huber", "log_loss"])
def test_labels_follow_scores_where_probabilities_are_equal(tmp_path: Path, loss: str) -> None:
    """Probabilities are clipped, or rounded to 1, for several classes of one row."""
    pytest.importorskip("skl2onnx", reason="pip install 'triune[sklearn]'")
    from sklearn.linear_model import SGDClassifier

    random = np.random.default_rng(0)
    rows = random.standard_normal((400, 5)).astype(np.float32)
    classes = np.digitize(rows[:, 0] * 2 + np.sin(rows[:, 1] * 2) * rows[:, 3], [-1, 1])
    model = SGDClassifier(loss=loss, random_state=0).fit(rows[:200], classes[:200])
    triune.convert(model, tmp_path / "m.onnx", verify=True)
    rows[200:] *= 10
    (label, *_) = answers(onnx.load(str(tmp_path / "m.onnx")), {"x": rows})
    assert (label == model.predict(rows)).all()

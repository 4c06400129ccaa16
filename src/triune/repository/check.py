"""Check whether the models of a repository would load, without loading them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from triune.backends.gate.kept import KeptVerdicts
from triune.backends.registry import Backends
from triune.config.configure import Source, read_source
from triune.config.encoder import ENCODER, GRAPH_BACKEND
from triune.config.layout import check_name
from triune.config.load_key import LoadKeys
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe, place
from triune.config.settings import ModelSettings
from triune.config.speech import SPEECH
from triune.config.stamps import Stamp, stamp
from triune.config.transformer import TRANSFORMER
from triune.config.unsupported import hints_without_effect
from triune.core.errors import InvalidArgumentError, TriuneError, no_memory
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.repository.finding import TWICE, Found, find_models
from triune.runtimes.decoders import decoder_runtime
from triune.runtimes.machine import Machine


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The result of checking one model.

    Attributes:
        name: its folder's name.
        versions: the versions that would be served, ascending; empty if unknown.
        backend: its backend; empty if unknown.
        units: the hardware units that it would run on.
        problems: why it would not load; empty if it would.
        hints: fields of its config that have no effect.
        config: the completed configuration of the newest version without a problem.
        verdicts: for each unit, the stored result of comparing that version's answers with those of `cpu`, from an
            earlier start.
    """

    name: str
    versions: tuple[int, ...]
    backend: str
    units: tuple[Unit, ...]
    problems: tuple[str, ...]
    hints: tuple[str, ...]
    config: ModelConfig | None
    verdicts: Mapping[Unit, Verdict] = field(default_factory=dict[Unit, Verdict])


def check(
    repositories: Sequence[Path],
    backends: Backends,
    machine: Machine,
    settings: ModelSettings,
    verdicts: KeptVerdicts | None = None,
) -> Sequence[ModelCheck]:
    """Check all models of the repositories, sorted by name. This reads configs and signatures, and compiles nothing.

    Args:
        repositories: the folders of models.
        backends: the backends that complete the configs of models.
        machine: the machine on which they would run.
        settings: defaults for all models.
        verdicts: the stored results of comparing units' answers with those of `cpu`; None if there is no store.

    Raises:
        InvalidArgumentError: a repository cannot be read.
    """
    return _Checker(find_models(repositories), backends, machine, settings, verdicts).check_all()


class _Checker:
    """Checks models. The models that an ensemble needs are checked before the ensemble."""

    def __init__(
        self,
        found: Mapping[str, Found],
        backends: Backends,
        machine: Machine,
        settings: ModelSettings,
        verdicts: KeptVerdicts | None,
    ) -> None:
        self._verdicts = verdicts
        self._keys = LoadKeys(machine, settings.completion)
        self._found = found
        self._backends = backends
        self._machine = machine
        self._settings = settings
        self._checks: dict[str, ModelCheck] = {}
        self._under_way: list[str] = []

    def check_all(self) -> Sequence[ModelCheck]:
        return [self._check(name) for name in sorted(self._found)]

    def _check(self, name: str) -> ModelCheck:
        if name not in self._checks:
            self._under_way.append(name)
            self._checks[name] = self._check_model(name, self._found[name])
            self._under_way.pop()
        return self._checks[name]

    def _check_model(self, name: str, found: Found) -> ModelCheck:
        if found.problem:
            places = f": {', '.join(str(each.parent) for each in found.folders)}" if found.problem == TWICE else ""
            return ModelCheck(name, (), "", (), (f"{found.problem}{places}",), (), None)
        try:
            return self._check_folder(name, found.folders[0])
        except TriuneError as error:
            problem = str(error)
        except MemoryError:
            problem = str(no_memory("its check", "check it alone"))
        except Exception as error:  # noqa: BLE001 - one model's failure must not keep the others from being checked
            problem = f"unexpected {type(error).__name__} while it was checked: {error}"
        return ModelCheck(name, (), "", (), (problem,), (), None)

    def _check_folder(self, name: str, folder: Path) -> ModelCheck:
        check_name(name)
        supports, completion = self._backends.supports, self._settings.completion
        source = read_source(name, folder, Stamp(), completion=completion, supports=supports)
        source = replace(source, parts=self._parts(name, self._backends.needs(source)))
        config: ModelConfig | None = None
        verdicts: Mapping[Unit, Verdict] = {}
        problems: list[str] = []
        for version in source.versions:
            try:
                config = self._backends.configure(source, version)
                verdicts = self._kept(source, version, config)
            except TriuneError as error:
                problems.append(f"version {version}: {error}")
        message = config.message if config else source.message
        has_cache = self._settings.cache_bytes is not None
        return ModelCheck(
            name=name,
            versions=source.versions,
            backend=config.backend if config else source.message.backend,
            units=config.units if config else (),
            problems=tuple(problems),
            hints=tuple(hints_without_effect(message, self._machine, has_cache=has_cache)),
            config=config,
            verdicts=verdicts,
        )

    def _kept(self, source: Source, version: int, config: ModelConfig) -> Mapping[Unit, Verdict]:
        """The stored results of comparing the answers of a version's units with those of `cpu`."""
        placed = replace(config, backend=GRAPH_BACKEND) if config.backend == ENCODER else config
        is_of_text = config.backend in (TRANSFORMER, SPEECH)
        is_known = is_of_text or placed.backend in self._machine.runtimes
        if self._verdicts is None or not is_known or set(config.units) == {Unit.CPU}:
            return {}
        key = self._keys.of(replace(source, stamp=stamp(source.folder)), version)
        if is_of_text:
            cores = self._machine.num_cores
            recipes = {unit: Recipe(decoder_runtime(self._machine, unit), unit, cores, ()) for unit in config.units}
        else:
            recipes = {recipe.unit: recipe for recipe in place(placed, self._machine)}
        found = {unit: self._verdicts.find(key, recipe) for unit, recipe in recipes.items()}
        return {unit: verdict for unit, verdict in found.items() if verdict is not None}

    def _parts(
        self, name: str, needs: Mapping[str, frozenset[int | None]]
    ) -> Mapping[tuple[str, int | None], ModelConfig]:
        """The configs of the models that an ensemble needs. Raises InvalidArgumentError if one of them would not
        load.
        """
        parts: dict[tuple[str, int | None], ModelConfig] = {}
        for need, versions in needs.items():
            if need not in self._found:
                raise InvalidArgumentError(
                    f"ensemble {name} contains models that are not available or ambiguous: {need}"
                )
            if need in self._under_way:
                raise InvalidArgumentError(f"circular dependency between ensembles: {need} -> ... -> {name} -> {need}")
            check = self._check(need)
            if check.config is None or check.problems:
                raise InvalidArgumentError(
                    f"ensemble '{name}' depends on '{need}', which would not load: {'; '.join(check.problems)}"
                )
            for version in versions:
                if version is not None and version not in check.versions:
                    raise InvalidArgumentError(
                        f"ensemble '{name}' depends on '{need}' whose required version {version} is not loaded; its "
                        f"versions are {', '.join(map(str, check.versions))}, and model_version: -1 takes the newest"
                    )
                parts[need, version] = check.config
        return parts

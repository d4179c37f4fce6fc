"""Taskmill from Python: run a recipe and read its tables.

>>> from taskmill import api
>>> run = api.run("demo", to="split")                        # doctest: +SKIP
>>> run.table("split", "tasks").to_pandas()                   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasketch import MinHash, MinHashLSH

    from taskmill.artifact import Manifest
    from taskmill.stages import Walk


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    path: Path

    def _walk(self) -> Walk:
        from taskmill.recipe_files import from_json
        from taskmill.stages import Walk

        return Walk(from_json(self.path), self.path)

    def manifest(self, stage: str) -> Manifest:
        """Return the record of a finished stage.

        Raises:
            UsageError: the stage is unknown or not finished.
        """
        from taskmill.artifact import read_manifest
        from taskmill.errors import UsageError
        from taskmill.stages import position

        position(stage)
        found = read_manifest(self._walk().directory(stage))
        if found is None:
            raise UsageError(f"the stage {stage!r} is not finished: run `taskmill {stage} {self.path}`")
        return found

    def table(self, stage: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table of a finished stage, such as ("curate", "tasks") or ("split", "members").

        Raises:
            UsageError: the stage is unknown or not finished, or has no such table.
            DamagedError: a file does not hold what was written.
        """
        from taskmill.artifact import Inputs

        return Inputs({stage: self.manifest(stage).directory}).table(stage, table, columns)

    def lsh(self, threshold: float | None = None, storage_config: dict[str, Any] | None = None) -> MinHashLSH:
        """Return datasketch's `MinHashLSH` of all examples that take part in the run; the keys are their ids.

        The words of a window, n and the permutations are those of the recipe's section `overlap`. It takes some 20
        seconds for 100,000 examples: the index is datasketch's own, and with a `storage_config` lies in its storage.

        >>> lsh = api.run("demo", to="split").lsh(threshold=0.5)                # doctest: +SKIP
        >>> lsh.query(run.minhash("What is the capital?", "Rome"))              # doctest: +SKIP
        >>> run.lsh(storage_config={"type": "redis", "basename": b"demo",
        ...                         "redis": {"host": "localhost", "port": 6379}})    # doctest: +SKIP

        Args:
            threshold: least Jaccard similarity; by default the recipe's.
            storage_config: as `MinHashLSH` takes it; by default in memory.

        Raises:
            UsageError: the stage overlap is not finished.
        """
        from taskmill.splits.overlap import with_folder
        from taskmill.splits.sharing.lsh import make_lsh

        walker = self._walk()
        self.manifest("overlap")
        settings = with_folder(walker.settings("overlap"))
        return make_lsh(walker.inputs("split"), settings, threshold, storage_config)

    def minhash(self, *texts: str) -> MinHash:
        """Return datasketch's `MinHash` of one example with these texts, to be looked up in `lsh`."""
        from taskmill.splits.overlap import with_folder
        from taskmill.splits.sharing.lsh import make_minhash

        return make_minhash(texts, with_folder(self._walk().settings("overlap")))

    def mixture(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Iterate over (position, prompt) of the mixture in its order; a prompt has the columns of its lock, with text.

        The distinct prompts of the range are read once, into an unnamed file; going on is starting at the next position.

        >>> for position, prompt in api.run("demo", to="mix").mixture(start=8_000):      # doctest: +SKIP
        ...     print(position, prompt["task"], prompt["text"])

        Args:
            start: first position.
            stop: the position behind the last; by default as many as the run reaches.

        Raises:
            UsageError: the stages render and mix are not finished, or there are no such positions.
            StaleError: the mixture was made of other prompts.
        """
        from taskmill.commands.export_mixture import iterate

        return iterate(self.path, start, stop)

    def trace(self, text: str, n: int | None = None, num_shown: int = 3) -> dict[str, Any]:
        """Return whether a text was trained on, and where: the object of `taskmill trace --json` (docs/trace.md).

        Args:
            text: looked for by windows of n words, or as a whole where it has fewer.
            n: words a window; by default the recipe's `overlap.n`.
            num_shown: examples listed of each state; all are counted.

        Raises:
            UsageError: a text without words, or a run without examples.
            DamagedError: a file of the run is missing or changed.
        """
        from taskmill.commands.finished import FinishedRun
        from taskmill.commands.tracing.texts import Text
        from taskmill.commands.tracing.trace import traced

        return traced(FinishedRun(self.path), [Text(text)], n, num_shown)

    def verify(self) -> list[str]:
        """Check every file against its manifest; returns one line per problem."""
        from taskmill.stages import verify

        return verify(self.path)[0]


def compare(*models: str | Path) -> dict[str, Any]:
    """Return how models differ from the first one: the object of `taskmill compare --json` (docs/comparing.md).

    >>> api.compare("runs/demo@initial", "runs/demo")["comparisons"][0]["rows"]      # doctest: +SKIP

    Args:
        models: two or more, each RUN for its trained model or RUN@MODEL.

    Raises:
        UsageError: fewer than two models, a run without scores, a model that is not there, or no prompt in common.
    """
    from taskmill.commands.scoring.compare import compared

    return compared([str(model) for model in models])


def verify(target: str | Path) -> dict[str, Any]:
    """Check every file against its manifest: the object of `taskmill verify --json`, with a line per problem.

    Args:
        target: a run, the folder or manifest of a published benchmark, or owner/name[@REVISION] on the Hub.

    Raises:
        UsageError: the target is neither a run nor a published benchmark.
        DataError, StorageError: the Hub has no such repository, or cannot be reached.
    """
    from taskmill.commands.publishing.verify import verified

    return verified(str(target))


def diff(before: str | Path, after: str | Path) -> dict[str, Any]:
    """Return what changed between two versions of a benchmark: the object of `taskmill diff --json`.

    >>> api.diff("ann/harbour-bench@v1", "runs/harbour")["contained"]                # doctest: +SKIP

    Args:
        before, after: each a run, the folder or manifest of a published benchmark, or owner/name[@REVISION] on the Hub.

    Raises:
        UsageError: one is neither a finished run nor a published benchmark.
        DamagedError: a file of one is damaged.
        DataError, StorageError: the Hub has no such repository, or cannot be reached.
    """
    from taskmill.commands.publishing.diff import compared, comparison_json

    return comparison_json(compared(str(before), str(after)))


def rebuild(
    target: str | Path,
    directory: str | Path,
    data_root: str | Path | None = None,
    workers: int | None = None,
    hydrate: str | Path | None = None,
) -> dict[str, Any]:
    """Make a published benchmark again from its sources: the object of `taskmill rebuild --json`, with `same`.

    >>> api.rebuild("ann/harbour-bench@v1", "runs/harbour", data_root="data")["same"]        # doctest: +SKIP

    Args:
        target: the folder or manifest of a published benchmark, or owner/name[@REVISION] on the Hub.
        directory: of the run: new, empty, or an earlier rebuild of the same benchmark.
        data_root: folder with the upstream files that are not on the Hub.
        workers: processes; by default all cores.
        hydrate: folder for the published rows with their texts; not for publishing.

    Raises:
        TaskmillError: as the command line would report it.
    """
    from taskmill.commands.publishing.rebuild import rebuilt

    root, folder = (None if path is None else Path(path) for path in (data_root, hydrate))
    return rebuilt(str(target), Path(directory), root, workers, folder).body


def export_benchmark(
    run: str | Path, folder: str | Path, *, with_data: bool = False, with_mixture: bool = False
) -> dict[str, Any]:
    """Write a run's benchmark into a folder as `publish` sends it: the object of `taskmill export benchmark --json`.

    Args:
        run: finished up to split, to render with data, to mix with the mixture.
        folder: new, empty or an earlier export.
        with_data: write the prompts too, of tasks whose licence allows it.
        with_mixture: write the mixture and its shares too.

    Raises:
        UsageError: the run cannot be published, or the folder holds other files.
        StaleError, DamagedError: the run's files do not belong together, or one is damaged.
        BusyError, StorageError: another process writes the run, or the disk refuses.
    """
    from taskmill.commands.publishing.package import exported, exported_json

    made = exported(Path(run), Path(folder), with_data, with_mixture)
    return exported_json(made, Path(run), Path(folder))


def publish(
    run: str | Path,
    repository: str,
    *,
    private: bool = False,
    with_data: bool = False,
    with_mixture: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
    replace: bool = False,
) -> dict[str, Any]:
    """Publish a run's benchmark as a data set on the Hub: the object of `taskmill publish --json`.

    >>> api.publish("runs/harbour", "ann/harbour-bench", tag="v1")["commit"]         # doctest: +SKIP

    Args:
        run: finished up to split, to render with data, to mix with the mixture.
        repository: owner/name on the Hub.
        private: make a new repository that only you can see.
        with_data: publish the prompts too, of tasks whose licence allows it.
        with_mixture: publish the mixture and its shares too.
        tag: name for this version; a tag never moves.
        dry_run: make the files, return what would be sent, and ask the Hub nothing.
        replace: take the place of another benchmark that the repository holds.
        replace: take the place of another benchmark that the repository holds.

    Raises:
        TaskmillError: as the command line would report it.
    """
    from taskmill.commands.publishing.publish import sent_or_planned

    return sent_or_planned(Path(run), repository, private, with_data, with_mixture, tag, dry_run, replace)[0]


def run(
    recipe: str | Path,
    *,
    directory: str | Path | None = None,
    first: str | None = None,
    to: str | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    force: bool = False,
) -> Run:
    """Bring the stages of a recipe up to date and return the run.

    Args:
        recipe: a YAML file, a shipped name or a run directory.
        directory: the run's folder; by default `recipe` where that is a run, else `runs/<name>`.
        first, to: the first and last stage; by default all.
        overrides: `a.b=VALUE` settings.
        workers: processes; by default all cores.
        force: redo what was built from other settings.

    Raises:
        TaskmillError: as the command line would report it.
    """
    from taskmill.engine import default_workers
    from taskmill.recipe_files import find
    from taskmill.stages import Walk, run_directory, span, walk

    resolved = find(str(recipe), tuple(overrides))
    path = run_directory(str(recipe), resolved.recipe.name, Path(directory) if directory else None)
    walker = Walk(resolved, path, workers or default_workers(), force)
    for _ in walk(walker, span(first, to)):
        pass
    return Run(path)

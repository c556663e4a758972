"""Training one arm: folds and final models, the epochs of these, and the state of an interrupted run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from arms import options as arm_options
from arms.data import ArmData
from arms.file_formats import Origin
from arms.fitting import Fit, FitTask, Pool, Recipe, fit, predict
from arms.head_fitting import equal_steps, fit_heads
from arms.options import features_computed_once
from arms.output import images_of_run
from classifier import (
    ClassifierHead,
    InputPipeline,
    PneumoniaClassifier,
    build_classifier,
    cpu_state_dict,
    feature_caches,
    predict_batches,
)
from common.distributed import from_main, require_same
from common.options import Affects, values_affecting
from data_loader import ImageSet
from utils import (
    UserError,
    as_tensor,
    derive_seed,
    load_checkpoint,
    load_json,
    save_checkpoint,
    save_json,
    set_seed,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldFit:
    """The fit that did not see ``val_rows``; ``fold`` counts from 1, and is 0 for the validation tenth."""

    fold: int
    val_rows: np.ndarray
    fit: Fit

    def probabilities(self) -> np.ndarray:
        """Return the probabilities of the held-out images at the best epoch, float64 [V]."""
        assert self.fit.val_logits is not None
        return sigmoid(self.fit.val_logits)


@dataclass(frozen=True)
class Repeat:
    """One training run of an arm, with its probabilities of the test and unlabelled images, float64 [N]."""

    number: int
    seed: int
    fit: Fit
    test: np.ndarray
    unlabelled: np.ndarray | None


@dataclass(frozen=True)
class Network:
    """What is trained: the classifier, its initial weights and what it is shown.

    ``backbone``: name of its network. ``views``: of each image, with a frozen backbone and light augmentation (see
    --feature-views).
    """

    backbone: str
    weights: str
    frozen: bool
    augment: str
    views: int
    image_size: int

    @property
    def features_once(self) -> bool:
        """Tell whether the backbone's features are computed once and heads alone are fitted on them."""
        return features_computed_once(self.frozen, self.augment, self.views)


@dataclass(frozen=True)
class _Job:
    """One fit; ``fold`` is 0 for the final model and the validation tenth, ``state`` names its files."""

    name: str
    state: str
    seed: int
    fold: int
    train_rows: np.ndarray
    val_rows: np.ndarray | None = None

    @property
    def desc(self) -> str:
        return self.state.replace("_", " ")


class ArmTrainer:
    """Fits classifiers on subsets of one pool of inputs.

    Where features are computed once (``Network.features_once``), they are kept below ``cache_dir`` (None:
    nowhere) and several heads are fitted on them at a time; else whole networks are fitted on pixels, one
    after the other. ``state_folder`` keeps finished and unfinished fits until the whole run is done; with
    ``resume`` they are taken up again. ``on_step`` is called after each optimiser step of whole networks.
    """

    def __init__(
        self,
        data: ArmData,
        recipe: Recipe,
        network: Network,
        *,
        seed: int,
        device: torch.device,
        state_folder: Path,
        resume: bool,
        cache_dir: str | Path | None = None,
        on_step: Callable[[], object] = lambda: None,
    ) -> None:
        self.data, self.recipe, self.network, self.device, self.seed = data, recipe, network, device, seed
        self.state_folder, self.resume, self.on_step = state_folder, resume, on_step
        self.labels = torch.from_numpy(data.pool_labels()).to(device)
        self._to_predict: dict[int, InputPipeline] = {}
        if not network.features_once:
            self.inputs = InputPipeline(as_tensor(data.pool_pixels()).to(device), network.augment)
            return
        self.backbone = self._new_classifier("backbone", seed)
        self.features = feature_caches(
            self.backbone,
            cache_dir,
            device=device,
            precision=recipe.precision,
            views=network.views,
            hint="a smaller --image-size or --train-fraction is quicker",
            remedy="give other --weights, or --unfreeze",
        )
        require_same("weights", [view.key for view in self.features])
        inputs = [view.features(images) for view in self.features for images in data.pool()]
        self.inputs = InputPipeline(torch.from_numpy(np.concatenate(inputs)).to(device), views=network.views)

    def train_folds(self, k: int) -> list[FoldFit]:
        """Fit once per fold; with ``k`` 0 once, without the validation tenth."""
        held_out = [np.flatnonzero(self.data.folds == fold) for fold in range(1, (k or 1) + 1)]
        jobs = []
        for fold, val_rows in enumerate(held_out, start=1):
            name, number = (f"fold_{fold}", fold) if k else ("validation", 0)
            train_rows = np.flatnonzero(self.data.folds != fold)
            jobs.append(_Job(name, name, self.seed, number, train_rows, val_rows))
        fits = self._fit_all(jobs, "folds" if k else "validation")
        return [FoldFit(job.fold, rows, one) for job, rows, one in zip(jobs, held_out, fits, strict=True)]

    def train_final(self, epochs: int, repeats: int = 1) -> list[Repeat]:
        """Fit final models on all training images, stopped after ``epochs`` of the recipe's schedule.

        Repeat r is what a single run with the r - 1st seed after the first would give.
        """
        rows = self.data.labelled_rows()
        jobs = [_Job("final", f"final_r{i + 1}", self.seed + i, 0, rows) for i in range(repeats)]
        found = []
        for number, final in enumerate(self._fit_all(jobs, "final", epochs), start=1):
            test = self.probabilities(final, self.data.test)
            rest = self.probabilities(final, self.data.unlabelled) if self.data.unlabelled else None
            found.append(Repeat(number, self.seed + number - 1, final, test, rest))
        return found

    def probabilities(self, result: Fit, images: ImageSet) -> np.ndarray:
        """Return the probabilities of ``images`` from the fitted weights, float64 [N]."""
        module = self._new_module("prediction", self.seed)
        module.load_state_dict(result.state_dict)
        # Heads are quick: all processes predict all, in the same batches as one would, to the last bit.
        logits = (predict_batches if self.network.features_once else predict)(
            module.eval(),
            self._inputs_of(images),
            np.arange(len(images.records)),
            batch_size=2 * self.recipe.batch_size,
            precision=self.recipe.precision,
        )
        return sigmoid(logits)

    def label_softly(self, ensemble: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Give images without labels the mean probability of the ``ensemble``, weights of whole classifiers.

        Raises ``UserError`` if their frozen backbone is another one.
        """
        if (found := self.data.softly_labelled()) is None:
            return
        images, first = found
        rows = slice(first, first + len(images.records))
        soft = np.mean([self.probabilities(self._fit_of(state), images) for state in ensemble], axis=0)
        known = self.labels[rows]
        self.labels[rows] = torch.where(known.isfinite(), known, torch.from_numpy(soft).to(known))

    def _fit_of(self, state: Mapping[str, torch.Tensor]) -> Fit:
        """Return a fit that ended with the weights ``state`` of a whole classifier."""
        if not self.network.features_once:
            return Fit(state_dict=dict(state))
        own = cpu_state_dict(self.backbone)
        if any(not torch.equal(own[name], state[name]) for name in own if name.startswith("backbone.")):
            raise UserError("the baselines have another frozen backbone than --weights now; train the baseline again")
        return Fit(state_dict={name: value for name, value in state.items() if name.startswith("head.")})

    def full_state(self, result: Fit) -> dict[str, torch.Tensor]:
        """Return the weights of the whole classifier, the shared frozen backbone included."""
        shared = cpu_state_dict(self.backbone) if self.network.features_once else {}
        return {**shared, **result.state_dict}

    # --- fitting ---
    def _fit_all(self, jobs: list[_Job], what: str, stop_after: int | None = None) -> list[Fit]:
        """Fit each job; those that an interrupted run finished are read. ``what``: for messages."""
        fits = from_main(self._read_finished, jobs) if self.resume else {}
        waiting = [job for job in jobs if job.state not in fits]
        fitted: Iterable[tuple[_Job, Fit]] = (
            from_main(lambda: list(self._fit_heads(waiting, what, stop_after)))
            if self.network.features_once
            else self._fit_networks(waiting, stop_after)
        )
        for job, result in fitted:
            fits[job.state] = result
            if job.val_rows is not None:
                best = f"best epoch {result.best_epoch} of {self.recipe.epochs}"
                loss, acc = (result.history[key][result.best_epoch - 1] for key in ("val_loss", "val_acc"))
                log.info(f"{job.desc}: {best}, validation loss {loss:.4f}, accuracy {acc:.3f}")
        return [fits[job.state] for job in jobs]

    def _read_finished(self, jobs: list[_Job]) -> dict[str, Fit]:
        files = {job.state: file for job in jobs if (file := self._finished(job)).is_file()}
        for state in files:
            log.info(f"{state}: finished before the interruption")
        return {state: Fit(**load_checkpoint(file)) for state, file in files.items()}

    def _fit_networks(self, jobs: list[_Job], stop_after: int | None) -> Iterator[tuple[_Job, Fit]]:
        """Fit one after the other, each by all processes together."""
        for job in jobs:
            unfinished = self._unfinished(job)
            result = fit(
                self._task(job),
                self.inputs,
                self.labels,
                self.recipe,
                stop_after=stop_after,
                state_file=unfinished,
                resume=self.resume,
                on_step=self.on_step,
            )
            from_main(save_checkpoint, self._finished(job), dict(vars(result)))
            from_main(unfinished.unlink, True)
            yield job, result

    def _fit_heads(self, jobs: list[_Job], what: str, stop_after: int | None) -> Iterator[tuple[_Job, Fit]]:
        """Fit heads with the same number of steps together, by the main process alone, as it is quick.

        Where an interruption left some of a group finished, the others' results are the same up to rounding.
        """
        job_of = {job.desc: job for job in jobs}
        for group in equal_steps([self._task(job) for job in jobs], self.recipe.batch_size):
            group_jobs = [job_of[task.name] for task in group]
            unfinished = self._unfinished(group_jobs[0])
            fits = fit_heads(
                group,
                self.inputs,
                self.labels,
                recipe=self.recipe,
                stop_after=stop_after,
                state_file=unfinished,
                resume=self.resume,
                desc=group[0].name if len(group) == 1 else f"{what}, {len(group)} together",
            )
            for job, result in zip(group_jobs, fits, strict=True):
                save_checkpoint(self._finished(job), dict(vars(result)))
            unfinished.unlink(missing_ok=True)
            yield from zip(group_jobs, fits, strict=True)

    def _task(self, job: _Job) -> FitTask:
        addition = self.data.addition(job.train_rows, job.fold, job.name, job.seed)
        shown = self.data.epoch_images if self.data.few else None
        pool = Pool(job.train_rows, addition.rows, self.data.use.treatment.shares, shown)
        if not self.labels[torch.from_numpy(np.concatenate([pool.real, pool.extra]))].isfinite().all():
            raise ValueError(f"{job.desc} would learn from hidden labels")
        module, seed = self._new_module(job.name, job.seed), derive_seed(job.seed, "fit", job.name)
        return FitTask(job.desc, module, pool, seed, job.val_rows, addition.class_weights)

    def _finished(self, job: _Job) -> Path:
        return self.state_folder / f"{job.state}.pth"

    def _unfinished(self, job: _Job) -> Path:
        return self.state_folder / f"{job.state}_state.pth"

    # --- networks and inputs ---
    def _new_module(self, name: str, seed: int) -> nn.Module:
        if not self.network.features_once:
            return self._new_classifier(name, seed)
        set_seed(derive_seed(seed, "weights", name))
        return ClassifierHead(self.network.backbone).to(self.device)

    def _new_classifier(self, name: str, seed: int) -> PneumoniaClassifier:
        set_seed(derive_seed(seed, "weights", name))
        model = build_classifier(self.network.weights, self.network.frozen, self.network.backbone)
        return model.to(self.device).to(memory_format=torch.channels_last)

    def _inputs_of(self, images: ImageSet) -> InputPipeline:
        """Return the inputs of images to be predicted; features are looked up once for all models."""
        if not self.network.features_once:
            return InputPipeline(as_tensor(images.pixels).to(self.device))
        if (known := self._to_predict.get(id(images))) is None:
            known = InputPipeline(torch.from_numpy(self.features[0].features(images)).to(self.device))
            self._to_predict[id(images)] = known
        return known


def sigmoid(logits: torch.Tensor) -> np.ndarray:
    """Return the probabilities, float64 [N], of ``logits`` [N]."""
    return logits.double().sigmoid().numpy()


# --- an interrupted run ----------------------------------------------------------------------------
def identity_of_run(origin: Origin, epochs_final: int | None, precision: str, processes: int) -> dict[str, Any]:
    """Return everything that a resumed run must share with the interrupted one to end in its numbers."""
    return {
        **values_affecting(arm_options.TRAIN_OPTIONS, Affects.RUN, origin["config"]),
        **images_of_run(origin),
        "plan_sha256": origin.get("plan_sha256"),
        "epochs_final": epochs_final,
        "precision": precision,
        "processes": processes,
    }


def prepare_state_folder(folder: Path, run: dict[str, Any], resume: bool) -> Path:
    """Empty the ``folder`` of the unfinished run, or with ``resume`` check that its run was ``run``.

    ``run``: from ``identity_of_run``. Raises ``UserError`` if the interrupted run was another one.
    """
    run_file = folder / "run.json"
    if resume and run_file.is_file():
        earlier = load_json(run_file)
        for key, value in run.items():
            if earlier.get(key) != value:
                raise UserError(
                    f"--resume: {key} was {earlier.get(key)} in the interrupted run and is {value} now; "
                    "give the same options, or leave --resume out to start from the beginning"
                )
        return folder
    if resume:
        log.info("--resume: nothing to resume, starting from the beginning")
    elif folder.is_dir():
        log.info(f"starting from the beginning, without --resume the interrupted run in {folder} is dropped")
    shutil.rmtree(folder, ignore_errors=True)
    save_json(run_file, run)
    return folder

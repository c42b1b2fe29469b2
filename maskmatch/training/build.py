"""Building a run, in stages: what can be checked before step 1 is checked before there is a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from maskmatch.config import Config, validate
from maskmatch.data import (
    Dataset,
    Loader,
    check_dataset,
    choose_loader,
    fingerprint,
    format_palette,
    load_dataset,
    make_loader,
    measurable,
    overlaps,
)
from maskmatch.data.checking.preflight import Checked
from maskmatch.data.loading.loader_choice import Choice
from maskmatch.method import MaskMatch, Teacher
from maskmatch.method.folding import Fold, find_folds
from maskmatch.metrics import Validator
from maskmatch.models import Student, build_student, check_crop, check_patches, init_from
from maskmatch.run_files.checkpoint import State
from maskmatch.run_files.config_file import write_config
from maskmatch.run_files.versions import write_environment
from maskmatch.training import distributed
from maskmatch.training.baseline import make_baseline
from maskmatch.training.distributed import World
from maskmatch.training.graph import step_graphs
from maskmatch.training.pseudo_label_watch import CollapseWatch, PseudoLabelCounter
from maskmatch.training.records import Recorder
from maskmatch.training.remedies import Remedies
from maskmatch.training.run import Run
from maskmatch.training.run_folder import resume, run_folder
from maskmatch.training.schedules import global_batch, resolve
from maskmatch.training.speed import Speed
from maskmatch.training.step import TrainStep, make_method
from maskmatch.training.telemetry import MetricsLog

FOLDING_SIZE = 64  # at least, of the image that a network is tried on


def build(config: Config, student: Student | None = None) -> Run:
    """Check everything that can be checked before step 1, then build the run, resumed where that is asked for."""
    validate(config)
    world, device = distributed.join(config.train.device)
    with world.leader_first():  # which may draw the data and download weights, and whose errors then stand alone
        plan = _plan(config, student, world, device)
    plan.student = _on_device(plan.student, world, device)
    config, dataset, student = plan.config, plan.dataset, plan.student
    teacher = Teacher(student.network, config.method.ema_momentum or 0.0)
    counter = PseudoLabelCounter(dataset.num_classes, config.method.threshold, device)
    graphs, without_graph = step_graphs(config.train, device, world)
    baseline = make_baseline(student, config, dataset.num_classes, world)
    train_step = TrainStep(student.network, teacher, plan.method, config.train, world, counter, graphs, plan.folds)
    folder = world.share(run_folder(config) if world.leads else Path())  # from here on a resume alone is refused
    data = fingerprint(
        dataset,
        seed=config.train.seed,
        global_batch=global_batch(config.train, world.size),
        masks=plan.checked.masks,
    )
    watch = CollapseWatch(dataset.class_names, config.method.threshold)
    state, notes = _load_networks(config, data, folder, world, student, teacher)
    loader = _loader(plan, world, device, start=state.step if state else 0)
    if world.leads:
        write_config(folder, config, _found(dataset, loader))
        write_environment(folder)
    run = Run(
        config=config,
        world=world,
        folder=folder,
        device=device,
        dataset=dataset,
        fingerprint=data,
        student=student,
        teacher=teacher,
        train_step=train_step,
        loader=loader,
        validator=_validator(student, dataset, world, device),
        log=MetricsLog(folder, state.last_record if state else 0, dataset.class_names) if world.leads else None,
        recorder=Recorder(train_step),
        watch=watch,
        speed=_speed(config, world, device, start=state.step if state else 0),
        without_dali=plan.choice.instead,
        without_graph=without_graph,
        baseline=baseline,
        remedies=Remedies(config, train_step, watch) if config.train.act_on_warnings else None,
        notes=[*_warnings(dataset, plan.checked, world), *notes],
    )
    if state:
        run.load_state(state)
    return run


@dataclass
class _Plan:
    """What a run will be, found right so far."""

    config: Config  # resolved
    dataset: Dataset
    checked: Checked
    student: Student
    method: MaskMatch
    choice: Choice  # of the loader
    folds: list[Fold]  # of the teacher


def _plan(config: Config, student: Student | None, world: World, device: torch.device) -> _Plan:
    supervised_only = config.method.supervised_only
    dataset = load_dataset(config.data, supervised_only=supervised_only)
    config = resolve(config, len(dataset.labeled if supervised_only else dataset.unlabeled), world.size)
    torch.manual_seed(config.train.seed)
    student = student or build_student(config.model, dataset.num_classes)
    if config.init_from:
        report = init_from(student.network, config.init_from, dataset.num_classes)
        student = replace(student, weights_report=report)
    crop = check_crop(student, config.data.crop)
    if not supervised_only and (config.method.lcr or config.method.ablation.reconstruction):
        check_patches(student, crop, config.method.patch_size)
    choice = choose_loader(config.data.loader, device, only_preferred=config.loader_from_file)
    method = make_method(config.method, student, dataset.num_classes)
    checked = check_dataset(dataset, supervised_only=supervised_only, skip=config.data.on_error == "skip")
    folds = _folds(config, student, device)
    return _Plan(config, measurable(dataset, checked.left_out), checked, student, method, choice, folds)


def _folds(config: Config, student: Student, device: torch.device) -> list[Fold]:
    """The teacher's BatchNorms that are folded: on a GPU, as on a CPU the numbers of a run are to stay the same."""
    if config.method.supervised_only or device.type != "cuda":
        return []
    return find_folds(student.network, student.padded_size(FOLDING_SIZE))


def _on_device(student: Student, world: World, device: torch.device) -> Student:
    network = distributed.synchronize_batchnorm(student.network, world, device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return replace(student, network=network)


def _load_networks(
    config: Config, data: dict[str, Any], folder: Path, world: World, student: Student, teacher: Teacher
) -> tuple[State | None, list[str]]:
    """Load what the run is resumed from into all processes' networks; the rest of it, if anything, and notes on it."""
    networks = student.network, teacher.network
    found = world.share(resume(config, data, folder, *networks) if world.leads else (None, []))
    for network in networks:
        world.copy(network)
    return found


def _loader(plan: _Plan, world: World, device: torch.device, *, start: int) -> Loader:
    """Of the batches from optimizer step `start` on; those of logged steps have the true classes, where known."""
    train, ramp_up = plan.config.train, plan.method.ramp_up

    def measured(batch: int) -> bool:
        step = batch // train.accumulate
        return Run.is_logged(step) and ramp_up.factor(step) > 0

    return make_loader(
        plan.dataset,
        replace(plan.config.data, loader=plan.choice.name),
        global_batch=train.batch_size * world.size,
        seed=train.seed,
        start_step=start * train.accumulate,
        device=device,
        supervised_only=plan.config.method.supervised_only,
        rank=world.rank,
        world_size=world.size,
        measured=measured,
        left_out=[error.path for error in plan.checked.left_out],
    )


def _found(dataset: Dataset, loader: Loader) -> dict[str, Any]:
    """Options of data that were left open, as config.yaml has them."""
    return {
        "loader": loader.name,
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "palette": format_palette(dataset.palette),
    }


def _validator(student: Student, dataset: Dataset, world: World, device: torch.device) -> Validator:
    """Each process looks at its share of the validation images."""
    share = slice(world.rank, None, world.size)
    return Validator(
        student, dataset.val, dataset.mask_table, dataset.num_classes, device, total=world.sum, share=share
    )


def _speed(config: Config, world: World, device: torch.device, *, start: int) -> Speed:
    images = (1 if config.method.supervised_only else 2) * global_batch(config.train, world.size)
    return Speed(images_a_step=images, device=device, steps=(config.train.steps or 0) - start)


def _warnings(dataset: Dataset, checked: Checked, world: World) -> list[str]:
    if not world.leads:
        return []
    left_out = (f"left out: {error}" for error in checked.left_out)
    return [f"warning: {line}" for line in (*dataset.notes, *overlaps(dataset), *left_out)]

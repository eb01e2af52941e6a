"""``python tests/support/mutations.py [WORD]``: what would go unnoticed? Each mutation breaks something that matters.

A copy of the checkout is broken in one place at a time and the test named beside it is run there: it must fail. WORD
chooses the mutations whose lines hold it. docs/project/development.md lists them all. Ends with status 1 if one went
unnoticed. Takes some minutes: two at a time, each in a process of its own.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 120  # of processor time: these tests need a tenth of it


class Mutation(NamedTuple):
    """``old`` stands once in ``solder_vae/<file>`` and becomes ``new``; ``test`` below ``tests/`` must notice."""

    what: str
    file: str
    old: str
    new: str
    test: str


# What docs/project/trust.md promises.
TRUST = (
    Mutation(
        "files are written in place",
        "utils/files.py",
        '.tmp")\n    try:\n        yield temporary\n        with',
        '.tmp")\n    temporary = path\n    try:\n        yield temporary\n        with',
        "utils/test_files.py::test_a_file_is_replaced_only_by_a_whole_one",
    ),
    Mutation(
        "a request that was cut off passes for one of fewer pictures",
        "inspection/service/uploads.py",
        "if not parser.ended:",
        "if False:",
        "inspection/service/test_app.py::test_a_body_that_ends_early_is_not_taken_for_fewer_pictures",
    ),
    Mutation(
        "requests that are scored together get each other's verdicts",
        "inspection/service/batching.py",
        "for group in groups:\n            group.answer.set_result(",
        "for group in reversed(groups):\n            group.answer.set_result(",
        "inspection/service/test_batching.py::test_what_waits_is_scored_together_while_it_fits",
    ),
    Mutation(
        "a header may take for ever",
        "inspection/service/server.py",
        "        elif self._deadline is None:",
        "        elif False:",
        "inspection/service/test_faults.py::test_one_that_is_slow_on_its_second_request",
    ),
    Mutation(
        "no process waits for another",
        "utils/files.py",
        "fcntl.flock(lock, fcntl.LOCK_EX)",
        "fcntl.flock(lock, fcntl.LOCK_SH)",
        "utils/test_files.py::test_a_lock_lets_one_in_at_a_time",
    ),
    Mutation(
        "a folder with a result is written over",
        "utils/files.py",
        "if path.exists() or path.is_symlink():",
        "if False:",
        "utils/test_files.py::test_nothing_is_overwritten",
    ),
    Mutation(
        "a failure leaves its part of a folder",
        "utils/files.py",
        "shutil.rmtree(temporary, ignore_errors=True)",
        "pass",
        "inspection/test_batch.py::test_a_failure_leaves_nothing_behind",
    ),
    Mutation(
        "control characters reach the terminal",
        "utils/text.py",
        "if text.isprintable():",
        "if True:",
        "data/test_folder.py::test_control_characters_of_names_stay_out_of_messages",
    ),
    Mutation(
        "no check for PNG bombs",
        "data/decompression_bombs.py",
        "return not _chunks_fit(data) or _inflates_too_much(data)",
        "return False",
        "project/test_hostile.py::test_images_that_would_take_long",
    ),
    Mutation(
        "no check for JPEGs of endless scans",
        "data/decompression_bombs.py",
        "MAX_SCANS = 100",
        "MAX_SCANS = 10**9",
        "project/test_hostile.py::test_images_that_would_take_long",
    ),
    Mutation(
        "loading a checkpoint runs its code",
        "models/checkpoint.py",
        'torch.load(checked_archive(path), map_location="cpu", weights_only=True)',
        'torch.load(path, map_location="cpu", weights_only=False)',
        "project/test_hostile.py::test_checkpoints_cannot_run_code",
    ),
    Mutation(
        "a checkpoint may name any function",
        "models/checkpoint_archive.py",
        "if operation.name in _OTHER_IMPORTS or (",
        "if operation.name == 0 and (",
        "project/test_hostile.py::test_checkpoints_cannot_fill_the_memory",
    ),
    Mutation(
        "a checkpoint's entries may be larger than its file",
        "models/checkpoint_archive.py",
        "if sum(entry.file_size for entry in entries) > path.stat().st_size:",
        "if False:",
        "project/test_hostile.py::test_checkpoints_cannot_fill_the_memory",
    ),
    Mutation(
        "metrics.csv lacks the row of the checkpoint's epoch",
        "training/resume.py",
        "if rows and training and not any(",
        "if False and not any(",
        "training/test_faults.py::test_killed_between_a_checkpoint_and_its_row",
    ),
    Mutation(
        "the order of the files on disk counts",
        "data/folder.py",
        "photos = sorted(_good(decoded, self.on_bad_file), key=Photo.sort_key)",
        "photos = list(_good(decoded, self.on_bad_file))",
        "data/test_folder.py::test_order_and_names_of_files_change_nothing",
    ),
    Mutation(
        "folders are listed as the disk has them",
        "data/listing.py",
        "sorted(os.scandir(folder), key=lambda entry: entry.name)",
        "list(os.scandir(folder))[::-1]",
        "inspection/test_batch.py::test_images_by_folder_file_pattern_and_table",
    ),
    Mutation(
        "loops of links are followed",
        "data/listing.py",
        "if (status.st_dev, status.st_ino) in seen:",
        "if False:",
        "data/test_folder.py::test_symlink_loops_end",
    ),
    Mutation(
        "a manifest may name an image twice",
        "data/layouts.py",
        "if record.path in lines:",
        "if False:",
        "data/test_folder.py::test_manifest_errors",
    ),
    Mutation(
        "a run resumes after its last epoch",
        "training/resume.py",
        "or done >= planned:",
        "or done > planned:",
        "training/test_run.py::test_what_cannot_be_resumed_is_refused",
    ),
    Mutation(
        "a run resumes under other settings",
        "training/resume.py",
        "    if changed:\n",
        "    if False:\n",
        "training/test_run.py::test_what_cannot_be_resumed_is_refused",
    ),
    Mutation(
        "the learning rate's schedule does not step before the checkpoint",
        "models/steps.py",
        "def on_train_epoch_end(self) -> None:\n",
        "def on_train_epoch_end(self) -> None:\n        return\n",
        "training/test_run.py::test_resume_ends_in_the_same_weights",
    ),
    Mutation(
        "a loss that is no number reaches the weights",
        "training/callbacks.py",
        "if torch.isfinite(loss):",
        "if True:",
        "training/test_faults.py::test_nan_in_one_batch",
    ),
    Mutation(
        "names become markup",
        "utils/document.py",
        "<p>{html.escape(text)}</p>",
        "<p>{text}</p>",
        "studies/paper/test_reproduce.py::test_texts_are_no_markup",
    ),
    Mutation(
        "unknown keys pass",
        "utils/cli.py",
        'if name not in [*fields, "hydra"]:',
        "if False:",
        "training/test_checks.py::test_unknown_keys_are_refused_with_those_that_there_are",
    ),
)

# What the numbers are.
NUMBERS = (
    Mutation(
        "L_grad has the wrong sign",
        "models/gradcon.py",
        "return -torch.stack(cosines).mean()",
        "return torch.stack(cosines).mean()",
        "models/test_gradcon.py::test_gradient_loss_against_a_loop_over_layers",
    ),
    Mutation(
        "the reference is no mean over all steps",
        "models/gradcon.py",
        "mean += (gradient - mean) / self.steps",
        "mean += (gradient - mean) * 0.1",
        "models/test_gradcon.py::test_reference_is_the_running_mean",
    ),
    Mutation(
        "the second step is unconstrained, too",
        "models/gradcon.py",
        "if self.reference.steps == 0:",
        "if self.reference.steps <= 1:",
        "models/test_autoencoder.py::test_three_steps_of_training_by_hand",
    ),
    Mutation(
        "a constraint of few steps has the weight of one",
        "models/gradcon.py",
        "else self.constraint_every * self.alpha",
        "else self.alpha",
        "models/test_autoencoder.py::test_a_constraint_of_few_steps_has_its_weight_on_average",
    ),
    Mutation(
        "Newton-Schulz goes on with a wrong Gram matrix",
        "models/muon.py",
        "gram = factor @ gram @ factor",
        "gram = factor @ gram",
        "models/test_muon.py::test_the_product_of_polynomials_is_newton_schulz",
    ),
    Mutation(
        "the reference is not in the checkpoint",
        "models/gradcon.py",
        "torch.zeros_like(conv.weight))",
        "torch.zeros_like(conv.weight), persistent=False)",
        "models/test_autoencoder.py::test_every_model_trains_saves_loads_and_scores_the_same",
    ),
    Mutation(
        "KL is averaged over the latents where Eq. 1 sums",
        "models/losses.py",
        "kl.sum(1) / pixels",
        "kl.mean(1)",
        "models/test_losses.py::test_elbo_score_is_the_elbo_of_torch_distributions",
    ),
    Mutation(
        "KL has a wrong sign",
        "models/losses.py",
        "- 1 - logvar)",
        "- 1 + logvar)",
        "models/test_losses.py::test_kl_is_that_of_torch_distributions",
    ),
    Mutation(
        "the variance stands for the deviation",
        "models/losses.py",
        "torch.exp(0.5 * logvar)",
        "torch.exp(logvar)",
        "models/test_losses.py::test_reparameterize_has_the_posteriors_moments",
    ),
    Mutation(
        "the error is summed over the pixels",
        "models/losses.py",
        ".sum((1, 2, 3)) / x.shape[1:].numel()",
        ".sum((1, 2, 3))",
        "models/test_losses.py::test_squared_error_against_a_loop",
    ),
    Mutation(
        "a score is another image's",
        "models/scores.py",
        "return output.error\n",
        "return output.error.flip(0)\n",
        "inspection/test_inspector.py::test_the_batch_does_not_matter",
    ),
    Mutation(
        "a score on the threshold is abnormal",
        "metrics/threshold.py",
        "dtype=np.float64) > self.value",
        "dtype=np.float64) >= self.value",
        "metrics/test_threshold.py::test_predicts_abnormal_only_above_and_in_float64",
    ),
    Mutation(
        "F1 counts true positives once",
        "metrics/classification.py",
        "(2 * tp + fp + fn)",
        "(tp + fp + fn)",
        "metrics/test_classification.py::test_threshold_numbers_against_torchmetrics",
    ),
    Mutation(
        "recall is of the normals",
        "metrics/classification.py",
        '"recall": _ratio(tp, positives)',
        '"recall": _ratio(tp, negatives)',
        "metrics/test_classification.py::test_a_case_by_hand",
    ),
    Mutation(
        "the escape rate counts false calls",
        "metrics/classification.py",
        '_rate("escape_rate", fn, positives)',
        '_rate("escape_rate", fp, positives)',
        "metrics/test_classification.py::test_a_case_by_hand",
    ),
    Mutation(
        "the trade-off forgets escapes on the threshold",
        "metrics/trade_off.py",
        "(bad <= threshold)",
        "(bad < threshold)",
        "inspection/test_recalibration.py::test_the_trade_off_counts",
    ),
    Mutation(
        "what several processes found is merged in any order",
        "utils/threads.py",
        "pending.popleft()",
        "pending.pop()",
        "inspection/test_predictions.py::test_an_inspection_by_several_processes_writes_the_same_files",
    ),
    Mutation(
        "the ONNX graph does not cut out the centre",
        "data/axes.py",
        "torch.floor((each - side) / 2)",
        "torch.zeros_like(side)",
        "inspection/onnx/test_export.py::test_any_shape_is_prepared_as_by_opencv",
    ),
    Mutation(
        "the corner is cut out, not the centre",
        "data/transforms.py",
        "top, left = (height - side) // 2, (width - side) // 2",
        "top, left = 0, 0",
        "data/test_transforms.py::test_centre_square_is_square_and_central",
    ),
    Mutation(
        "shrinking does not average",
        "data/transforms.py",
        "interpolation = cv2.INTER_AREA if",
        "interpolation = cv2.INTER_LINEAR if",
        "data/test_transforms.py::test_prepare_averages_over_areas_when_shrinking",
    ),
    Mutation(
        "resuming puts epochs anew in order",
        "data/datamodule.py",
        "default_rng((self.seed, self.epoch))",
        "default_rng((self.seed, id(self)))",
        "training/test_run.py::test_resume_ends_in_the_same_weights",
    ),
    Mutation(
        "every rank has all images",
        "data/datamodule.py",
        "range(rank, dealt, num_replicas)",
        "range(0, dealt)",
        "training/test_data_parallel.py::test_every_image_is_dealt_out_once_and_to_all_ranks_equally_often",
    ),
)
MUTATIONS = TRUST + NUMBERS


def noticed(mutation: Mutation, folder: Path) -> bool:
    """Whether the test fails in a copy of the checkout with the mutation."""
    copy = folder / str(MUTATIONS.index(mutation))
    ignore = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "outputs", "multirun", "results")
    shutil.copytree(ROOT, copy, ignore=ignore)
    path = copy / "solder_vae" / mutation.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"{mutation.file} holds {text.count(mutation.old)} times {mutation.old!r}"
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    # A test without an end is one that fails: by its processor time, since others may leave it little of the machine.
    limited = ["sh", "-c", f'ulimit -t {MOST_SECONDS}; exec "$@"', "sh"]
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", f"tests/{mutation.test}"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*limited, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    endless = ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    assert endless or ended.returncode in (0, 1), ended.stdout[-2000:]  # anything else is no failed test
    end = " (no end)" if endless else ""
    print("noticed  " if ended.returncode else "UNNOTICED", f"{mutation.what} ({mutation.test}){end}", flush=True)
    shutil.rmtree(copy)
    return ended.returncode != 0


def main(word: str = "") -> int:
    chosen = [mutation for mutation in MUTATIONS if word in " ".join(mutation)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as side_by_side:
        results = list(side_by_side.map(lambda mutation: noticed(mutation, Path(folder)), chosen))
    print(f"{sum(results)} of {len(results)} noticed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
